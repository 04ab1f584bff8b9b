#include "core/page_heap.h"

#include <algorithm>

#include "core/zeros.h"

namespace minitc {
namespace {

constexpr PageCount kNoLimit{SIZE_MAX};

// The color of a large span that begins at `start`, at most `room`. Not by turns: what takes the
// place of an old object then needs memory in the same pages.
std::size_t color_of(PageId start, std::size_t room) {
  constexpr int kShift = 64 - std::bit_width(kColors - 1);
  const std::size_t line = start.value * kGolden >> kShift;
  return line % (std::min(room, kMaxColor) / kColorBytes + 1) * kColorBytes;
}

}  // namespace

void PageHeap::init(const Os& os, MetadataArena& arena, PageMap& map, const Options& options) {
  const auto limit = [](std::size_t bytes) {
    return bytes == 0 ? kNoLimit : PageCount{bytes >> kPageShift};
  };
  os_ = &os;
  arena_ = &arena;
  map_ = &map;
  fixed_bound_ = PageCount::of_bytes(options.free_bound);
  soft_limit_ = limit(options.soft_limit);
  hard_limit_ = limit(options.hard_limit);
  if (hard_limit_ != kNoLimit) {  // the description of what is acquired may bring a chunk
    hard_limit_ -= std::min(hard_limit_, PageCount::of_bytes(kMetadataChunkBytes));
  }
  huge_pages_ = options.huge_pages;
  asked_ = huge_pages_ == Options::kYes  ? HugePages::kWanted
           : huge_pages_ == Options::kNo ? HugePages::kAvoided
                                         : HugePages::kNothing;
  offers_ = options.release == Options::kOffer;
  const LockGuard guard(lock_, *this);
  ticked_ms_ = aged_ms_ = reused_ms_ = os.now_ms();
}

// Calls take() under the lock until it is true; in between the heap grows, if take() says so. Where
// the OS refuses more, runs that differ in state, or are on their way to the OS, may make a fitting
// one of `pages` when all are returned. Where the hard limit does, it is what they have that others
// may get; `leaving` pages have memory.
template <typename Take>
bool PageHeap::acquire(PageCount pages, PageCount leaving, Take&& take) {
  Growth growth;
  for (std::size_t tries = 0; tries < kMaxTries;) {
    bool excess = false;
    Shortage shortage;
    growth.least = PageCount{};
    arena_->refill_if_low();
    {
      const LockGuard guard(lock_, *this);
      if (take(growth)) {
        growth.least = PageCount{};  // less than it looked for first was there
        excess = has_excess_locked(Keep::kAtPeak);
      } else if (growth.least == PageCount{}) {
        shortage = shortage_locked(pages, leaving);
      }
    }
    if (growth.least != PageCount{}) {
      growth.is_refused = !grow(growth);
      continue;  // another thread may have taken it, and then it is not a try
    }
    if (excess) return_excess(Keep::kAtPeak);
    if (!shortage.exists) return true;
    if (!may_end(shortage)) return false;
    ++tries;
  }
  return false;
}

PageHeap::Shortage PageHeap::shortage_locked(PageCount pages, PageCount leaving) {
  Shortage shortage{.exists = true, .returns = returns_.load(std::memory_order_relaxed)};
  const PageCount more = pages - leaving;
  const bool is_limited = !may_commit_locked(more) && held_locked() + more <= hard_limit_;
  // Who forks waits for nobody: the others' returns end under the lock, which it holds. Nor does
  // who interrupted its own thread's return: another may have done so and wait for that.
  bool may_wait = !lock_.is_held_for_fork();
  shortage.may_end = is_limited || committed_locked() + returned_.pages() + returning_ >= pages;
  for (Span* run = returning_runs_.front(); run != nullptr; run = run->next) {
    const bool is_own = run->returned_by() == this_holder();
    may_wait = may_wait && !is_own;
    shortage.others_return = shortage.others_return || !is_own;
  }
  shortage.others_return = shortage.others_return && may_wait;
  if (shortage.may_end && shortage.others_return) return_awaited_ = true;
  return shortage;
}

// Returns all free pages, or waits for those who do, however often a signal ends its sleep. Whether
// that may have made a difference.
bool PageHeap::may_end(const Shortage& shortage) {
  if (!shortage.may_end) return false;
  if (return_excess(Keep::kNothing) != PageCount{}) return true;
  const auto none_ended = [&] {
    return returns_.load(std::memory_order_relaxed) == shortage.returns;
  };
  while (shortage.others_return && none_ended()) futex_wait(&returns_, shortage.returns);
  return !none_ended();
}

SpanList PageHeap::acquire_small(unsigned cls, std::size_t wanted, unsigned shard) {
  SpanList spans;
  acquire(PageCount{kSizeClasses[cls].pages}, PageCount{},
          [&](Growth& growth) MINITC_NO_THREAD_SAFETY_ANALYSIS {
            take_small_locked(cls, wanted, shard, spans, growth);
            return !spans.empty();
          });
  return spans;
}

// They came out of one run, or were all held back and have memory.
void PageHeap::populate(const SpanList& spans) const {
  if (spans.empty() || !spans.front()->zero) return;
  const PageId start = spans.back()->start;
  const PageCount length = spans.front()->end() - start;
  if (is_whole(start, length)) os_->populate(start.ptr(), length.bytes());
}

Span* PageHeap::acquire_large(PageCount pages, PageCount alignment, std::size_t color_room,
                              PageCount leaving) {
  Span* span = nullptr;
  acquire(pages, leaving, [&](Growth& growth) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    leaving_ += leaving;
    span = take_locked(pages, alignment, growth);
    if (span == nullptr) {
      leaving_ -= leaving;
      return false;
    }
    put_in_use_locked(span, SpanState::kLarge);
    span->color() = color_of(span->start, color_room);
    stats_.large += span->length;
    ++stats_.large_count;
    ++stats_.large_acquired;
    stats_.large_acquired_pages += span->length;
    return true;
  });
  return span;
}

void PageHeap::release_small(SpanList& spans) {
  if (spans.empty()) return;
  bool excess;
  {
    const LockGuard guard(lock_, *this);
    while (Span* const span = spans.pop()) {
      keep_locked(span);
    }
    excess = has_excess_locked(Keep::kBound);
  }
  if (excess) return_excess(Keep::kBound);
}

Finding PageHeap::release_large(void* ptr) {
  const Seen seen = look_at(ptr);
  bool excess = false;
  {
    const LockGuard guard(lock_, *this);
    Span* const span = large_at(ptr);
    if (span == nullptr) return find_locked(ptr);
    note_seen_locked(seen, span->length);
    forget_large_locked(span);
    put_back_locked(span, SpanState::kFree);
    excess = has_excess_locked(Keep::kBound);
  }
  if (excess) return_excess(Keep::kBound);
  return Finding{Verdict::kLive};
}

bool PageHeap::resize_in_place(Span* span, PageCount pages) {
  return pages < span->length ? shrink(span, pages) : pages == span->length || extend(span, pages);
}

bool PageHeap::shrink(Span* span, PageCount pages) {
  bool excess;
  arena_->refill_if_low();
  {
    const LockGuard guard(lock_, *this);
    Span* const tail = split_locked(span, pages);
    if (tail == nullptr) return false;
    stats_.large -= tail->length;
    put_back_locked(tail, SpanState::kFree);
    excess = has_excess_locked(Keep::kBound);
  }
  if (excess) return_excess(Keep::kBound);
  return true;
}

// Where only the hard limit is in the way, it is what other free pages have that the span gets.
bool PageHeap::extend(Span* span, PageCount pages) {
  const PageCount extra = pages - span->length;
  bool is_done = false;
  acquire(extra, PageCount{}, [&](Growth& /*growth*/) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    Span* const next = room_behind_locked(*span, extra);
    if (next == nullptr) return true;
    if (next->state == SpanState::kReturned && !may_commit_locked(extra)) {
      return held_locked() + extra > hard_limit_;
    }
    is_done = extend_locked(span, next, extra);
    return true;
  });
  return is_done;
}

// The free run behind a large span, if that may grow by `extra` into it; else null. What is one
// mapping of moved pages stays one, so that it can be moved again.
Span* PageHeap::room_behind_locked(const Span& span, PageCount extra) const {
  Span* const next = map_->span_at(span.end());
  const bool is_room =
      next != nullptr && next->is_free() && next->mapping == span.mapping && next->length >= extra;
  return is_room ? next : nullptr;
}

bool PageHeap::extend_locked(Span* span, Span* next, PageCount extra) {
  index_of(next).remove(next);
  if (cut_locked(next, PageCount{}, extra) == nullptr) return false;
  note_taken_locked(next->state, extra);
  merge_locked(span, next);
  stats_.in_use += extra;
  stats_.large += extra;
  note_use_locked();
  return true;
}

// Pages that were only offered may have no memory, and would get it by being written to.
void PageHeap::clear(Span* span, std::size_t bytes) {
  if (span->zero) return;
  if (offers_ && is_whole(span->start, span->length) &&
      os_->decommit(span->start.ptr(), span->length.bytes())) {
    return;
  }
  clear_written(span->object(), bytes);
}

bool PageHeap::feed_arena() {
  const LockGuard guard(lock_, *this);
  fit_committed_locked(PageCount::of_bytes(kMetadataChunkBytes), kOnePage);
  return feed_arena_locked();
}

Finding PageHeap::find(const void* ptr) {
  if (const Span* const span = large_at(ptr); span != nullptr) {
    return {Verdict::kLive, reinterpret_cast<std::uintptr_t>(ptr), span->object_bytes()};
  }
  const LockGuard guard(lock_, *this);
  return find_locked(ptr);
}

PageCount PageHeap::servable() {
  const LockGuard guard(lock_, *this);
  return hard_limit_ == kNoLimit ? stats_.mapped : std::max(stats_.mapped, hard_limit_);
}

PageHeapStats PageHeap::stats() {
  const LockGuard guard(lock_, *this);
  PageHeapStats stats = stats_;
  stats.free = committed_locked() + returning_;
  stats.returned = returned_.pages();
  return stats;
}

// --- Under the lock ----------------------------------------------------------------------------

void PageHeap::put_in_use_locked(Span* run, SpanState state) {
  run->zero = run->state == SpanState::kReturned && !offers_;
  note_taken_locked(run->state, run->length);
  MINITC_ASSERT(!run->zero || (*run->start.ptr() == 0 && run->end().ptr()[-1] == 0));  // I6
  run->become(state);
  stats_.in_use += run->length;
  note_use_locked();
}

// More is in use than before.
void PageHeap::note_use_locked() {
  stats_.peak = std::max(stats_.peak, used_locked());
  aged_ = std::min(aged_, committed_locked());
  least_free_ = std::min(least_free_, committed_locked() - aged_);
  if (held_locked() <= soft_limit_) {
    pressed_ = PageCount{};
  } else if (used_locked() >= pressed_ + PageCount{pressed_.value / kPressurePart}) {
    pressed_ = used_locked();
    is_pressed_.store(true, std::memory_order_relaxed);
  }
}

void PageHeap::put_back_locked(Span* span, SpanState state) {
  stats_.in_use -= span->length;
  span->become(state);
  insert_locked(coalesce_locked(span));
}

// The span of the large object that begins at `ptr`, or null. Without the lock, of a bad pointer it
// may be one that was.
Span* PageHeap::large_at(const void* ptr) const {
  Span* const span = map_->span_at(PageId::of(ptr));
  const bool is_large = span != nullptr && span->state == SpanState::kLarge;
  return is_large && span->object() == ptr ? span : nullptr;
}

Finding PageHeap::find_locked(const void* ptr) {
  const PageId page = PageId::of(ptr);
  // No span is longer than all that is mapped. A foreign pointer is mostly far away.
  const Span* const span = map_->last_span_up_to(page, stats_.mapped);
  if (span == nullptr || page >= span->end()) return {Verdict::kForeign};
  if (span->state != SpanState::kLarge) return {Verdict::kStale};
  if (ptr < span->object()) return {Verdict::kForeign};
  const Verdict verdict = span->object() == ptr ? Verdict::kLive : Verdict::kInterior;
  return {verdict, reinterpret_cast<std::uintptr_t>(span->object()), span->object_bytes()};
}

// Takes a large span whose addresses are lost out of the heap. They may be the heap's again, since
// another thread may have been given them.
void PageHeap::drop_locked(Span* span) {
  forget_large_locked(span);
  stats_.in_use -= span->length;
  stats_.mapped -= span->length;
  areas_ = nullptr;  // one of them has a hole
  end_mapping_locked(span);
  map_->clear_ends(span);
  arena_->destroy(span);
}

// --- Self-check --------------------------------------------------------------------------------

const char* PageHeap::list_spans(PageId& from, SpanView* out, std::size_t& count) {
  const std::size_t room = count;
  const LockGuard guard(lock_);
  for (count = 0; count < room;) {
    from = map_->next_registered(from);
    Span* const span = map_->span_at(from);
    if (span == nullptr) break;
    MINITC_EXPECT(from < span->end() && map_->span_at(span->end() - kOnePage) == span);  // I4
    if (count == 0 && span->start < from) {  // it became one since the last call
      from = span->end();
      continue;
    }
    MINITC_EXPECT(span->start == from);  // I4
    const std::uint64_t color = span->state == SpanState::kLarge ? span->color() : 0;
    out[count] = {.start = from,
                  .length = span->length,
                  .state = span->state,
                  .cls = static_cast<std::uint8_t>(map_->class_at(from.address())),
                  .shard = static_cast<std::uint8_t>(span->shard()),
                  .color = static_cast<std::uint16_t>(color)};
    MINITC_EXPECT((out[count].cls != 0) == (span->state == SpanState::kSmall));  // I4
    from = span->end();
    ++count;
  }
  return nullptr;
}

const char* PageHeap::violation_of_locked(const Span* run, SpanState state) const {
  MINITC_EXPECT(run->state == state);                          // I3
  MINITC_EXPECT(map_->span_at(run->start) == run);             // I4
  MINITC_EXPECT(map_->span_at(run->end() - kOnePage) == run);  // I4
  if (state == SpanState::kKept) return nullptr;
  for (const Span* const other :
       {map_->span_at(run->start - kOnePage), map_->span_at(run->end())}) {
    MINITC_EXPECT(other == nullptr || !run->joins(*other));  // I5
  }
  return nullptr;
}

const char* PageHeap::violation_locked(std::size_t& seen) const {
  const char* broken = nullptr;
  PageCount free;
  PageCount returned;
  PageCount kept;
  const auto look = [&](const Span* run, SpanState state, PageCount& sum)
                        MINITC_NO_THREAD_SAFETY_ANALYSIS {
                          if (broken == nullptr) broken = violation_of_locked(run, state);
                          sum += run->length;
                          ++seen;
                        };
  free_.for_each([&](const Span* run) { look(run, SpanState::kFree, free); });
  returned_.for_each([&](const Span* run) { look(run, SpanState::kReturned, returned); });
  for (unsigned list = 0; list < kept_lists_; ++list) {
    for (const Span* span = kept_[list].front(); span != nullptr; span = span->next) {
      look(span, SpanState::kKept, kept);
    }
  }
  if (broken != nullptr) return broken;
  MINITC_EXPECT(free == free_.pages() && returned == returned_.pages() &&
                kept == kept_pages_);                                                          // I3
  MINITC_EXPECT(stats_.mapped == stats_.in_use + committed_locked() + returned + returning_);  // I4
  return nullptr;
}

}  // namespace minitc
