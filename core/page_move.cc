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
  set_mapping_locked(from, 0);
  set_mapping_locked(to, new_mapping_locked());
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
  for (PageCount lacks = span->length; filling.count < kMostParts && may_move_locked(kMaxFilled);) {
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
    set_mapping_locked(target, new_mapping_locked());
    filling.runs[filling.count] = run;
    filling.targets[filling.count++] = target;
    filling.pages += part;
    at = at + part;
    lacks -= part;
  }
}

// False if `span` lost a part of its addresses with that; what is left of it is free then.
bool PageHeap::end_fill(Span* span, const Filling& filling) {
  Move result = Move::kDone;
  std::size_t done = 0;
  for (; done < filling.count; ++done) {
    const Span* const run = filling.runs[done];
    result =
        os_->transfer(run->start.ptr(), run->length.bytes(), filling.targets[done]->start.ptr());
    if (result != Move::kDone) break;
  }
  const bool is_lost = result == Move::kTargetLost;
  const LockGuard guard(lock_, *this);
  for (std::size_t i = 0; i < filling.count; ++i) {
    Span* const target = filling.targets[i];
    if (i < done + is_lost) {
      target->next = span->next;
      span->next = target;
    } else {
      set_mapping_locked(target, 0);
      arena_->destroy(target);
    }
    end_return_locked(filling.runs[i], i < done);
  }
  if (done != 0) span->zero = false;
  if (result == Move::kRefused) fill_refused_ = true;
  if (!is_lost) return true;
  ++lost_targets_;
  stats_.large -= span->length;
  --stats_.large_count;
  put_back_locked(span, SpanState::kFree);
  Span* const lost = filling.targets[done];  // joined nothing
  free_.remove(lost);
  forget_locked(lost);
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
    other->next = tail->next;
    tail->next = other;
    other = next;
  }
  span->next = run;
  if (part != nullptr) {
    set_mapping_locked(part, run->mapping);
    run->length -= part->length;
    part->next = tail->next;
    tail->next = part;
  }
  return tail;
}

// What filled a span that is freed becomes runs of its own, as it may be mappings of its own. The
// span is what follows them, which may be nothing.
void PageHeap::free_filled_locked(Span* span) {
  if (span->next == nullptr) return;
  map_->clear_ends(span);
  while (Span* const run = span->next) {
    span->next = run->next;
    run->next = nullptr;
    span->start = span->start + run->length;
    span->length -= run->length;
    map_->set_ends(run);
    insert_freed_locked(run);
  }
  if (span->length != PageCount{}) map_->set_ends(span);
}

bool PageHeap::may_move_locked(std::size_t most) const {
  return moved_runs_ < most && lost_targets_ < kMaxLost;
}

// A number for what is a mapping of its own now. They come again after 65,535; should two such be
// neighbours, the kernel refuses to move what they have become.
std::uint16_t PageHeap::new_mapping_locked() {
  if (++last_mapping_ == 0) ++last_mapping_;
  return last_mapping_;
}

void PageHeap::set_mapping_locked(Span* run, std::uint16_t mapping) {
  moved_runs_ += (mapping != 0);
  moved_runs_ -= (run->mapping != 0);
  run->mapping = mapping;
}

}  // namespace minitc
