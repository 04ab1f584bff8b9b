// How the page heap finds a run, cuts it, joins it with others, and grows.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {
namespace {

// The best fitting run for aligned `pages`: the shortest, of so many that are looked at, if it lies
// well, as one does that had such pages before; else one that is long enough wherever it lies.
Span* best_fit(const RunIndex& index, PageCount pages, PageCount alignment,
               std::size_t looks = kAlignedLooks) {
  for (Span* run = index.best_fit(pages); run != nullptr && looks != 0;
       run = index.next(run), --looks) {
    if (run->head(alignment) + pages <= run->length) return run;
  }
  return index.best_fit(pages + alignment - kOnePage);
}

}  // namespace

// Takes a run of `pages` out of the free ones. Null if the heap may grow, which `growth` then says,
// or if there is none.
Span* PageHeap::take_locked(PageCount pages, PageCount alignment, Growth& growth) {
  const PageCount wanted = pages + alignment - kOnePage;
  Span* run = fit_committed_locked(pages, alignment);
  const bool may_commit = run == nullptr && may_commit_locked(pages);
  if (may_commit) run = join_locked(wanted);
  if (may_commit && run == nullptr) run = best_fit(returned_, pages, alignment);
  if (may_commit && run == nullptr && !growth.is_refused) {
    plan_growth_locked(wanted, growth);
    return nullptr;
  }
  // There is no other way, however many have to be looked at.
  if (run == nullptr) run = best_fit(free_, pages, alignment, SIZE_MAX);
  if (may_commit && run == nullptr) run = best_fit(returned_, pages, alignment, SIZE_MAX);
  if (run == nullptr) return nullptr;
  index_of(run).remove(run);
  return cut_locked(run, run->head(alignment), pages);
}

// Takes one run and cuts it into spans of class `cls`. Their number is `wanted` or less: a shorter
// run that is committed comes before a longer one that is not, and that before growth.
void PageHeap::take_small_locked(unsigned cls, std::size_t wanted, unsigned shard, SpanList& spans,
                                 Growth& growth) {
  const auto give = [&](Span* span) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    put_in_use_locked(span, SpanState::kSmall);
    map_->set_small(span, cls);
    spans.push(span);
  };
  // First those of the shard itself: its threads had them last.
  unsigned list = kept_for(cls, shard);
  for (unsigned looks = 0; looks < kept_lists_ / kNumClasses && spans.empty(); ++looks) {
    if (list >= kept_lists_) list = cls;
    for (Span* span; wanted != 0 && (span = take_kept_locked(list)) != nullptr; --wanted) {
      give(span);
    }
    list += kNumClasses;
  }
  if (!spans.empty()) return;
  const PageCount each{kSizeClasses[cls].pages};
  PageCount pages{each.value * wanted};
  fit_committed_locked(each, kOnePage);
  for (const RunIndex* const index : {&free_, &returned_}) {
    if (index->best_fit(pages) != nullptr) break;
    const Span* const shorter = index->best_fit(each);
    if (shorter == nullptr) continue;
    pages = PageCount{shorter->length.value / each.value * each.value};
    break;
  }
  Span* run = take_locked(pages, kOnePage, growth);
  if (run == nullptr) run = take_locked(each, kOnePage, growth);
  if (run == nullptr) return;
  std::size_t left = run->length.value / each.value;
  if (run->state == SpanState::kReturned) round_to_huge_pages_locked(run);
  for (; run != nullptr && left != 0; --left) {
    Span* const rest = run->length > each ? split_locked(run, each) : nullptr;
    if (run->length > each) break;
    give(run);
    run = rest;
  }
  if (run == nullptr) return;
  if (left == 0) run->become(SpanState::kFree);  // it has memory with the others
  insert_locked(coalesce_locked(run));
}

// A free small span is held back for its class: the same cut again means the same places of
// objects, which are in the processor's caches.
void PageHeap::keep_locked(Span* span) {
  const unsigned cls = map_->class_at(span->start.address());
  map_->clear_small(span);
  map_->set_ends(span);
  stats_.in_use -= span->length;
  span->become(SpanState::kKept);
  const unsigned list = kept_for(cls, span->shard());
  kept_[list].push(span);
  kept_lists_ = std::max(kept_lists_, list - cls + static_cast<unsigned>(kNumClasses));
  kept_pages_ += span->length;
}

// A span of a list of those held back, out of it, or null.
Span* PageHeap::take_kept_locked(unsigned list) {
  Span* const span = kept_[list].pop();
  if (span != nullptr) kept_pages_ -= span->length;
  return span;
}

// Makes spans that are held back free runs, `pages` at least if there are so many.
void PageHeap::dissolve_locked(PageCount pages) {
  for (PageCount done; done < pages && kept_pages_ != PageCount{};) {
    kept_next_ = (kept_next_ + 1) % kept_lists_;
    for (Span* span; done < pages && (span = take_kept_locked(kept_next_)) != nullptr;) {
      done += span->length;
      span->become(SpanState::kFree);
      insert_locked(coalesce_locked(span));
    }
  }
}

// The best fitting committed run. What is held back is dissolved for it, up to twice as much as is
// wanted and no less than kMinDissolved, so that the lock is not held for long.
Span* PageHeap::fit_committed_locked(PageCount pages, PageCount alignment) {
  Span* const run = best_fit(free_, pages, alignment);
  if (run != nullptr || kept_pages_ == PageCount{}) return run;
  const PageCount wanted = pages + alignment - kOnePage;
  dissolve_locked(std::max(wanted + wanted, PageCount{kMinDissolved}));
  return best_fit(free_, pages, alignment);
}

// The run in `state` that ends or begins with `page`, or null.
Span* PageHeap::run_at_locked(PageId page, SpanState state) const {
  Span* const span = map_->span_at(page);
  return span != nullptr && span->state == state ? span : nullptr;
}

// The longest committed run, with what it lacks from returned ones beside it: less new memory than
// a returned run. Null if it is short of more than half, or if they are too short.
Span* PageHeap::join_locked(PageCount pages) {
  Span* const run = free_.longest();
  if (run == nullptr || run->mapping != 0 || run->length + run->length < pages) return nullptr;
  Span* const before = run_at_locked(run->start - kOnePage, SpanState::kReturned);
  Span* const after = run_at_locked(run->end(), SpanState::kReturned);
  const PageCount lacks = pages - run->length;
  const PageCount from_after = after != nullptr ? std::min(lacks, after->length) : PageCount{};
  const PageCount from_before = lacks - from_after;
  if (from_before != PageCount{} && (before == nullptr || before->length < from_before)) {
    return nullptr;
  }
  free_.remove(run);
  annex_locked(run, from_before, from_after);
  note_taken_locked(SpanState::kReturned, lacks);
  insert_locked(coalesce_locked(run));
  return free_.best_fit(pages);
}

// Adds to `run`, which is in no index, so many pages of the returned runs beside it, or as many as
// they have.
void PageHeap::annex_locked(Span* run, PageCount before, PageCount after) {
  const auto other_at = [&](PageId page, PageCount part) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    return part == PageCount{} ? nullptr : run_at_locked(page, SpanState::kReturned);
  };
  Span* const first = other_at(run->start - kOnePage, before);
  Span* const last = other_at(run->end(), after);
  // Both at once, as the description of a rest may take a run of the index for metadata.
  for (Span* const other : {first, last}) {
    if (other != nullptr) returned_.remove(other);
  }
  const auto add = [&](Span* other, PageCount head, PageCount part)
                       MINITC_NO_THREAD_SAFETY_ANALYSIS {
                         if (Span* const cut = cut_locked(other, head, part); cut != nullptr)
                           merge_locked(run, cut);
                       };
  if (first != nullptr) {
    const PageCount part = std::min(before, first->length);
    add(first, first->length - part, part);
  }
  if (last != nullptr) add(last, PageCount{}, std::min(after, last->length));
}

// What to ask the OS for, since no free run has `pages`.
void PageHeap::plan_growth_locked(PageCount pages, Growth& growth) {
  PageCount chunk{std::clamp(stats_.mapped.value / 8, kMinChunkPages, kMaxChunkPages)};
  // Large requests of one length leave no rest at a chunk's end, which no later chunk would make
  // longer: the kernel puts each in front of the last.
  const bool is_large = pages.bytes() > kMaxSmall;
  if (is_large) chunk.value = std::max(chunk.value - chunk.value % pages.value, kMinChunkPages);
  stop_asking_if_unlikely_locked(is_large ? pages : PageCount{});
  growth.least = pages;
  growth.chunk = std::max(chunk, pages);
}

// Adds a run from the OS; false if that refuses. Not under the lock: the kernel lets the call wait
// for page faults and returns of other threads, hundreds of milliseconds if there are many.
bool PageHeap::grow(const Growth& growth) {
  PageCount chunk = growth.chunk;
  void* memory;
  while ((memory = os_->reserve(chunk.bytes())) == nullptr) {
    if (chunk == growth.least) return false;
    chunk = std::max(PageCount{chunk.value / 2}, growth.least);
  }
  const PageId start = PageId::of(memory);
  Span* run = nullptr;
  if (map_->ensure(start, chunk)) {
    run = arena_->create<Span>(start, chunk, SpanState::kReturned);
    if (run == nullptr && feed_arena()) {
      run = arena_->create<Span>(start, chunk, SpanState::kReturned);
    }
  }
  if (run == nullptr) {
    os_->release(memory, chunk.bytes());
    return false;
  }
  {
    const LockGuard guard(lock_, *this);
    map_->include(start, chunk);
    note_area_locked(start, chunk);
    stats_.mapped += chunk;
    map_->set_ends(run);
    insert_locked(coalesce_locked(run));
  }
  advise(start, chunk);
  return true;
}

// A new Span; null if there is no memory for it.
Span* PageHeap::describe_locked(PageId start, PageCount pages, SpanState state) {
  Span* const span = arena_->try_create<Span>(start, pages, state);
  if (span != nullptr || !feed_arena_locked()) return span;
  return arena_->try_create<Span>(start, pages, state);
}

// The front of the best fitting run, so that no new Span is needed for the rest. Nothing is
// dissolved for it: who splits a run has it in no index, where a neighbour would look for it.
bool PageHeap::feed_arena_locked() {
  const PageCount pages = PageCount::of_bytes(kMetadataChunkBytes);
  Span* run = free_.best_fit(pages);
  if (run == nullptr) run = returned_.best_fit(pages);
  if (run == nullptr) return false;
  index_of(run).remove(run);
  map_->clear_ends(run);
  Span front(run->start, pages, run->state);
  front.mapping = run->mapping;
  arena_->donate(run->start.ptr());
  stats_.mapped -= pages;
  run->start = run->start + pages;
  run->length -= pages;
  if (run->length == PageCount{}) {
    arena_->destroy(run);
  } else {
    map_->set_ends(run);
    insert_locked(run);
  }
  end_mapping_locked(&front);
  return true;
}

// Cuts `run`, which is in no index, after `pages`; the rest, in the same state, or null if there is
// no memory to describe it.
Span* PageHeap::split_locked(Span* run, PageCount pages) {
  MINITC_ASSERT(pages != PageCount{} && pages < run->length);
  Span* const rest = describe_locked(run->start + pages, run->length - pages, run->state);
  if (rest == nullptr) return nullptr;
  rest->mapping = run->mapping;
  run->length = pages;
  map_->set_ends(run);
  map_->set_ends(rest);
  return rest;
}

// Cuts `pages` out of `run`, which is in no index, behind its first `head`; what is left at both
// ends goes into the index. If there is no memory to describe it, all of it does, and null. It
// joins none but its own head then: another neighbour may be in no index either.
Span* PageHeap::cut_locked(Span* run, PageCount head, PageCount pages) {
  const bool has_head = head != PageCount{};
  if (has_head) {
    Span* const rest = split_locked(run, head);
    insert_locked(run);
    if (rest == nullptr) return nullptr;
    run = rest;
  }
  if (run->length > pages) {
    Span* const rest = split_locked(run, pages);
    insert_locked(rest != nullptr ? rest : has_head ? coalesce_locked(run) : run);
    if (rest == nullptr) return nullptr;
  }
  return run;
}

// Joins `run`, which is free and in no index, with the neighbours of its state.
Span* PageHeap::coalesce_locked(Span* run) {
  Span* const neighbours[] = {map_->span_at(run->start - kOnePage), map_->span_at(run->end())};
  for (Span* const other : neighbours) {
    if (other == nullptr || !run->joins(*other)) continue;
    index_of(other).remove(other);
    merge_locked(run, other);
  }
  return run;
}

// Makes two neighbours, in no index, one in the state of `run`.
void PageHeap::merge_locked(Span* run, Span* other) {
  map_->clear_ends(other);
  map_->clear_ends(run);
  run->start = std::min(run->start, other->start);
  run->length += other->length;
  map_->set_ends(run);
  arena_->destroy(other);
}

}  // namespace minitc
