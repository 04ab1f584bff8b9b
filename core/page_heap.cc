#include "core/page_heap.h"

#include <algorithm>

namespace minitc {

void PageHeap::init(const Os& os, MetadataArena& arena, PageMap& map,
                    std::size_t free_bound_bytes) {
  os_ = &os;
  arena_ = &arena;
  map_ = &map;
  fixed_bound_ = PageCount::of_bytes(free_bound_bytes);
}

// Takes a run, puts it in use and calls finish(span) under the lock. Where the OS refuses more,
// runs that differ in state, or are on their way to the OS, may make a fitting one when all are
// returned.
template <typename Finish>
Span* PageHeap::acquire(PageCount pages, PageCount alignment, SpanState state, Finish&& finish) {
  for (std::size_t tries = 0; tries < kMaxTries; ++tries) {
    std::uint32_t seen;
    bool others_return;
    {
      const LockGuard guard(lock_, *this);
      if (Span* const span = take_locked(pages, alignment); span != nullptr) {
        put_in_use_locked(span, state);
        finish(span);
        return span;
      }
      if (free_.pages() + returned_.pages() + returning_ < pages) return nullptr;
      seen = returns_.load(std::memory_order_relaxed);
      others_return = false;
      for (Span* run = returning_runs_.front(); run != nullptr; run = run->next) {
        if (run->returned_by() != holder_number()) others_return = true;
      }
      if (others_return) return_awaited_ = true;
    }
    if (return_excess(/*all=*/true) != PageCount{}) continue;
    if (others_return) futex_wait(returns_, seen);
    if (returns_.load(std::memory_order_relaxed) == seen) return nullptr;
  }
  return nullptr;
}

Span* PageHeap::acquire_small(unsigned cls) {
  return acquire(PageCount{kSizeClasses[cls].pages}, kOnePage, SpanState::kSmall,
                 [this, cls](Span* span) { map_->set_small(span, cls); });
}

Span* PageHeap::acquire_large(PageCount pages, PageCount alignment) {
  return acquire(pages, alignment, SpanState::kLarge,
                 [this](const Span* span) MINITC_NO_THREAD_SAFETY_ANALYSIS {
                   stats_.large += span->length;
                   ++stats_.large_count;
                 });
}

void PageHeap::release_small(Span* span) {
  bool excess;
  {
    const LockGuard guard(lock_, *this);
    map_->clear_small(span);
    map_->set_ends(span);
    put_back_locked(span, SpanState::kFree);
    excess = free_.pages() > bound_locked();
  }
  if (excess) return_excess(/*all=*/false);
}

Finding PageHeap::release_large(void* ptr) {
  bool excess = false;
  Span* moved = nullptr;
  {
    const LockGuard guard(lock_, *this);
    Span* const span = map_->span_at(PageId::of(ptr));
    if (span == nullptr || span->state != SpanState::kLarge || span->start.ptr() != ptr) {
      return find_locked(ptr);
    }
    stats_.large -= span->length;
    --stats_.large_count;
    if (span->moved) --moved_spans_;
    // Shortened in place it may end inside a kernel page, whose rest is another's.
    const bool is_whole = (span->length.bytes() & (os_->page_bytes - 1)) == 0;
    const bool renews = span->moved && is_whole;
    span->moved = false;
    if (renews) {
      moved = span;
      stats_.in_use -= span->length;
      begin_return_locked(span);
    } else {
      put_back_locked(span, SpanState::kFree);
      excess = free_.pages() > bound_locked();
    }
  }
  if (moved != nullptr) {  // its own mapping goes, so that mappings do not add up
    const bool renewed = os_->renew(moved->start.ptr(), moved->length.bytes());
    const LockGuard guard(lock_, *this);
    end_return_locked(moved, renewed);
  }
  if (excess) return_excess(/*all=*/false);
  return Finding{Verdict::kLive};
}

bool PageHeap::resize_in_place(Span* span, PageCount pages) {
  return pages < span->length ? shrink(span, pages) : pages == span->length || extend(span, pages);
}

bool PageHeap::shrink(Span* span, PageCount pages) {
  bool excess;
  {
    const LockGuard guard(lock_, *this);
    Span* const tail = split_locked(span, pages);
    if (tail == nullptr) return false;
    stats_.large -= tail->length;
    put_back_locked(tail, SpanState::kFree);
    excess = free_.pages() > bound_locked();
  }
  if (excess) return_excess(/*all=*/false);
  return true;
}

// A span of moved pages stays the one mapping that it is, so that it can be moved again.
bool PageHeap::extend(Span* span, PageCount pages) {
  if (span->moved) return false;
  const LockGuard guard(lock_, *this);
  const PageCount extra = pages - span->length;
  Span* const next = map_->span_at(span->end());
  if (next == nullptr || !next->is_free() || next->length < extra) return false;
  index_of(next).remove(next);
  if (next->length > extra) {
    Span* const rest = split_locked(next, extra);
    if (rest == nullptr) {
      insert_locked(next);
      return false;
    }
    insert_locked(rest);
  }
  map_->clear_ends(next);
  map_->clear_ends(span);
  span->length = pages;
  map_->set_ends(span);
  arena_->destroy(next);
  stats_.in_use += extra;
  stats_.large += extra;
  stats_.peak = std::max(stats_.peak, stats_.in_use);
  return true;
}

bool PageHeap::move_pages(Span* from, Span* to, bool& lost) {
  const std::size_t misaligned =
      (from->start.address() | to->start.address() | from->length.bytes() | to->length.bytes()) &
      (os_->page_bytes - 1);
  lost = false;
  {
    const LockGuard guard(lock_, *this);
    if (misaligned != 0 || moved_spans_ == kMaxMoved || lost_targets_ == kMaxLost) return false;
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
  if (!from->moved) ++moved_spans_;
  from->moved = false;
  to->moved = true;
  if (result == Move::kSourceLost) {
    drop_locked(from);
  } else {
    stats_.large -= from->length;
    --stats_.large_count;
    put_back_locked(from, SpanState::kReturned);
  }
  return true;
}

bool PageHeap::feed_arena() {
  const LockGuard guard(lock_, *this);
  return feed_arena_locked();
}

Finding PageHeap::find(const void* ptr) {
  const LockGuard guard(lock_, *this);
  return find_locked(ptr);
}

PageHeapStats PageHeap::stats() {
  const LockGuard guard(lock_, *this);
  PageHeapStats stats = stats_;
  stats.free = free_.pages() + returning_;
  stats.returned = returned_.pages();
  return stats;
}

// --- Under the lock ----------------------------------------------------------------------------

// Takes a run of `pages` out of the free ones, or out of a new chunk.
Span* PageHeap::take_locked(PageCount pages, PageCount alignment) {
  const PageCount wanted = pages + alignment - kOnePage;
  Span* run = fit_locked(wanted);
  if (run == nullptr) {
    if (!grow_locked(wanted)) return nullptr;
    run = fit_locked(wanted);
  }
  index_of(run).remove(run);

  const PageCount head{-run->start.value & (alignment.value - 1)};
  if (head != PageCount{}) {
    Span* const rest = split_locked(run, head);
    insert_locked(run);
    if (rest == nullptr) return nullptr;
    run = rest;
  }
  if (run->length > pages) {
    Span* const rest = split_locked(run, pages);
    if (rest == nullptr) {
      insert_locked(coalesce_locked(run));
      return nullptr;
    }
    insert_locked(rest);
  }
  return run;
}

// Committed runs first: their memory is there already.
Span* PageHeap::fit_locked(PageCount pages) {
  Span* const run = free_.best_fit(pages);
  return run != nullptr ? run : returned_.best_fit(pages);
}

bool PageHeap::grow_locked(PageCount pages) {
  PageCount chunk{std::clamp(stats_.mapped.value / 8, kMinChunkPages, kMaxChunkPages)};
  // Large requests of one length leave no rest at a chunk's end, which no later chunk would make
  // longer: the kernel puts each in front of the last.
  if (pages.bytes() > kMaxSmall) {
    chunk.value = std::max(chunk.value - chunk.value % pages.value, kMinChunkPages);
  }
  void* memory = nullptr;
  for (chunk = std::max(chunk, pages);; chunk = std::max(PageCount{chunk.value / 2}, pages)) {
    memory = os_->reserve(chunk.bytes());
    if (memory != nullptr) break;
    if (chunk == pages) return false;
  }
  const PageId start = PageId::of(memory);
  Span* run = nullptr;
  if (map_->ensure(start, chunk)) run = describe_locked(start, chunk, SpanState::kReturned);
  if (run == nullptr) {
    os_->release(memory, chunk.bytes());
    return false;
  }
  stats_.mapped += chunk;
  map_->set_ends(run);
  insert_locked(coalesce_locked(run));
  return true;
}

// A new Span; null if there is no memory for it.
Span* PageHeap::describe_locked(PageId start, PageCount pages, SpanState state) {
  Span* const span = arena_->create<Span>(start, pages, state);
  if (span != nullptr || !feed_arena_locked()) return span;
  return arena_->create<Span>(start, pages, state);
}

// The front of the best fitting run, so that no new Span is needed for the rest.
bool PageHeap::feed_arena_locked() {
  const PageCount pages = PageCount::of_bytes(kMetadataChunkBytes);
  Span* const run = fit_locked(pages);
  if (run == nullptr) return false;
  index_of(run).remove(run);
  map_->clear_ends(run);
  arena_->donate(run->start.ptr(), pages.bytes());
  stats_.mapped -= pages;
  run->start = run->start + pages;
  run->length -= pages;
  if (run->length == PageCount{}) {
    arena_->destroy(run);
  } else {
    map_->set_ends(run);
    insert_locked(run);
  }
  return true;
}

// Cuts `run`, which is in no index, after `pages`; the rest, in the same state, or null if there is
// no memory to describe it.
Span* PageHeap::split_locked(Span* run, PageCount pages) {
  MINITC_ASSERT(pages != PageCount{} && pages < run->length);
  Span* const rest = describe_locked(run->start + pages, run->length - pages, run->state);
  if (rest == nullptr) return nullptr;
  run->length = pages;
  map_->set_ends(run);
  map_->set_ends(rest);
  return rest;
}

// Joins `run`, which is free and in no index, with the neighbours of its state.
Span* PageHeap::coalesce_locked(Span* run) {
  Span* const neighbours[] = {map_->span_at(run->start - kOnePage), map_->span_at(run->end())};
  for (Span* const other : neighbours) {
    if (other == nullptr || other->state != run->state) continue;
    index_of(other).remove(other);
    map_->clear_ends(other);
    map_->clear_ends(run);
    run->start = std::min(run->start, other->start);
    run->length += other->length;
    map_->set_ends(run);
    arena_->destroy(other);
  }
  return run;
}

void PageHeap::put_in_use_locked(Span* run, SpanState state) {
  run->zero = run->state == SpanState::kReturned;
  MINITC_ASSERT(!run->zero || (*run->start.ptr() == 0 && run->end().ptr()[-1] == 0));  // I6
  run->become(state);
  stats_.in_use += run->length;
  stats_.peak = std::max(stats_.peak, stats_.in_use);
}

void PageHeap::put_back_locked(Span* span, SpanState state) {
  stats_.in_use -= span->length;
  span->become(state);
  insert_locked(coalesce_locked(span));
}

Finding PageHeap::find_locked(const void* ptr) {
  if (!map_->covers(reinterpret_cast<std::uintptr_t>(ptr))) return {Verdict::kForeign};
  const PageId page = PageId::of(ptr);
  // No span is longer than all that is mapped. A foreign pointer is mostly far away.
  const Span* const span = map_->last_span_up_to(page, stats_.mapped);
  if (span == nullptr || page >= span->end()) return {Verdict::kForeign};
  if (span->state != SpanState::kLarge) return {Verdict::kStale};
  const bool at_start = span->start.ptr() == ptr;
  return {at_start ? Verdict::kLive : Verdict::kInterior, span->start.address(),
          span->length.bytes()};
}

// Takes a large span whose addresses are lost out of the heap.
void PageHeap::drop_locked(Span* span) {
  stats_.large -= span->length;
  --stats_.large_count;
  stats_.in_use -= span->length;
  stats_.mapped -= span->length;
  if (span->moved) --moved_spans_;
  map_->clear_ends(span);
  arena_->destroy(span);
}

// --- Self-check --------------------------------------------------------------------------------

void PageHeap::check_run_locked(const Span* run, SpanState state) const {
  MINITC_CHECK(run->state == state);                          // I3
  MINITC_CHECK(map_->span_at(run->start) == run);             // I4
  MINITC_CHECK(map_->span_at(run->end() - kOnePage) == run);  // I4
  for (const Span* const other :
       {map_->span_at(run->start - kOnePage), map_->span_at(run->end())}) {
    MINITC_CHECK(other == nullptr || other->state != state);  // I5
  }
}

void PageHeap::check() {
  const LockGuard guard(lock_, *this);
  check_locked();
}

std::size_t PageHeap::check_locked() const {
  std::size_t seen = 0;
  PageCount free;
  PageCount returned;
  free_.for_each([&](const Span* run) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    check_run_locked(run, SpanState::kFree);
    free += run->length;
    ++seen;
  });
  returned_.for_each([&](const Span* run) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    check_run_locked(run, SpanState::kReturned);
    returned += run->length;
    ++seen;
  });
  MINITC_CHECK(free == free_.pages() && returned == returned_.pages());         // I3
  MINITC_CHECK(stats_.mapped == stats_.in_use + free + returned + returning_);  // I4
  return seen;
}

}  // namespace minitc
