// Pages that change their addresses: those of a block that outgrows its place, and those of free
// runs that fill a new block, instead of going back to the OS while others are faulted in.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {

bool PageHeap::move_pages(Span* from, Span* to, bool& lost) {
  const bool are_whole = is_whole(from->start, from->length) && is_whole(to->start, to->length);
  lost = false;
  {
    const LockGuard guard(lock_, *this);
    if (!are_whole || from->next != nullptr || !may_move_locked(kMaxMoved)) return false;
  }
  // Both spans are the caller's.
  const Move result =
      os_->move(from->start.ptr(), from->length.bytes(), to->start.ptr(), to->length.bytes());
  if (result == Move::kDone) advise(from->start, from->length);
  if (result == Move::kRefused) advise(to->start, to->length);
  const LockGuard guard(lock_, *this);
  switch (result) {
    case Move::kRefused:
      return false;
    case Move::kTargetLost:
      lost = true;
      ++lost_targets_;
      drop_locked(to);
      return false;
    case Move::kSourceLost:
    case Move::kDone:
      break;
  }
  to->color() = from->color();
  end_mapping_locked(from);
  end_mapping_locked(to);
  begin_mapping_locked(to);
  if (result == Move::kSourceLost) {
    drop_locked(from);
  } else {
    stats_.large -= from->length;
    --stats_.large_count;
    put_back_locked(from, SpanState::kReturned);
  }
  return true;
}

// Looks for free runs whose pages may fill `span`, which has none, from its beginning. They are
// kReturning until end_fill(). Its last part is the shortest run that is long enough.
void PageHeap::begin_fill_locked(const Span* span, Filling& filling) {
  PageId at = span->start;
  for (PageCount lacks = span->length; filling.count < kMostParts;) {
    Span* run = free_.best_fit(lacks);
    if (run == nullptr) run = free_.longest();
    if (run == nullptr) return;
    const PageCount part = std::min(lacks, run->length);
    if (part.bytes() < kMinPartBytes || !is_whole(at, part) || !is_whole(run->start, part)) return;
    free_.remove(run);  // before a description takes its pages for metadata
    run = cut_locked(run, PageCount{}, part);
    if (run == nullptr) return;
    Span* const target = describe_locked(at, part, SpanState::kFree);
    if (target == nullptr) return insert_locked(coalesce_locked(run));
    begin_return_locked(run);
    filling.runs[filling.count] = run;
    filling.targets[filling.count++] = target;
    filling.pages += part;
    at = at + part;
    lacks -= part;
  }
}

// False if `span` lost a part of its addresses with that; what is left of it is free then. Those
// that are lost may be another thread's by now: nothing is noted of them.
bool PageHeap::end_fill(Span* span, const Filling& filling) {
  Move result = Move::kDone;
  std::size_t done = 0;
  for (; done < filling.count; ++done) {
    const Span* const run = filling.runs[done];
    result =
        os_->transfer(run->start.ptr(), run->length.bytes(), filling.targets[done]->start.ptr());
    if (result != Move::kDone) break;
    advise(run->start, run->length);  // it was mapped anew
  }
  const PageCount lost = result == Move::kTargetLost ? filling.targets[done]->length : PageCount{};
  const LockGuard guard(lock_, *this);
  for (std::size_t i = 0; i < filling.count; ++i) {
    Span* const target = filling.targets[i];
    if (i < done) {
      begin_mapping_locked(target);
      span->add_part(target);
    } else {
      arena_->destroy(target);
    }
    end_return_locked(filling.runs[i], i < done);
  }
  if (done != 0) span->zero = false;
  fills_refused_ = result == Move::kRefused ? fills_refused_ + 1 : 0;
  if (lost == PageCount{}) return true;
  ++lost_targets_;
  areas_ = nullptr;  // one of them has a hole
  stats_.large -= span->length;
  --stats_.large_count;
  --stats_.large_acquired;
  stats_.large_acquired_pages -= span->length;
  map_->clear_ends(span);
  stats_.mapped -= lost;
  stats_.in_use -= lost;
  span->start = span->start + lost;  // as if its parts lay behind them
  span->length -= lost;
  put_back_locked(span, SpanState::kFree);
  return false;
}

// Cuts a large span in use after `pages`; the rest, or null if there is no memory to describe it.
Span* PageHeap::split_large_locked(Span* span, PageCount pages) {
  const PageId cut = span->start + pages;
  Span* run = span->next;  // those of the highest addresses first
  while (run != nullptr && run->start >= cut) run = run->next;
  Span* part = nullptr;
  if (run != nullptr && run->end() > cut) {
    part = describe_locked(cut, run->end() - cut, SpanState::kFree);
    if (part == nullptr) return nullptr;
  }
  Span* const tail = split_locked(span, pages);
  if (tail == nullptr) {
    if (part != nullptr) arena_->destroy(part);
    return nullptr;
  }
  for (Span* other = span->next; other != run;) {
    Span* const next = other->next;
    tail->add_part(other);  // the other way round, but it is about to be freed
    other = next;
  }
  span->next = run;
  if (part != nullptr) {
    run->length -= part->length;
    if (run->mapping != 0) begin_mapping_locked(part);
    tail->add_part(part);
  }
  return tail;
}

// What filled a span that is freed becomes runs of its own, as it may be mappings of its own. The
// span is what follows them, which may be nothing.
void PageHeap::free_filled_locked(Span* span) {
  map_->clear_ends(span);
  while (Span* const run = span->next) {
    span->next = run->next;
    run->next = nullptr;
    span->start = span->start + run->length;
    span->length -= run->length;
    map_->set_ends(run);
    insert_locked(coalesce_locked(run));
  }
  if (span->length != PageCount{}) map_->set_ends(span);
}

bool PageHeap::may_move_locked(std::size_t most) const {
  return mappings_ < most && lost_targets_ < kMaxLost;
}

// `run` is a mapping of its own from now on. Numbers come again after 65,535; should two such be
// neighbours, the kernel refuses to move what they have become.
void PageHeap::begin_mapping_locked(Span* run) {
  if (++last_mapping_ == 0) ++last_mapping_;
  run->mapping = last_mapping_;
  ++mappings_;
}

// `run` is none any more, nor part of one: what is left of that lies before it, behind it or both.
void PageHeap::end_mapping_locked(Span* run) {
  if (run->mapping == 0) return;
  mappings_ += parts_beside_locked(run);
  --mappings_;
  run->mapping = 0;
}

// A part of a mapping becomes one of its own, as the spans in a filled one are seen by no other.
void PageHeap::part_mapping_locked(Span* run) {
  if (run->mapping != 0 && parts_beside_locked(run) != 0) begin_mapping_locked(run);
}

std::size_t PageHeap::parts_beside_locked(const Span* run) const {
  std::size_t parts = 0;
  for (const Span* const other :
       {map_->span_at(run->start - kOnePage), map_->span_at(run->end())}) {
    if (other != nullptr && other->mapping == run->mapping) ++parts;
  }
  return parts;
}

}  // namespace minitc
