// Tier 3: runs of pages. Best fit, split, coalesce, growth from the OS and return to it, and large
// allocations.
//
// Thread safety: all public methods may be called from any thread; one lock guards everything. The
// memory of a run goes back to the OS outside the lock, in a state of its own (kReturning), in
// which nobody else touches the run.
//
// Invariants: I4  Every page of the heap is in exactly one span, and a span's first and last page
//                 map to it.
//             I5  No two neighbours are both kReturned, or both kFree, but for moved pages of
//                 different mappings.
//             I6  kReturned runs read as zeros, unless memory is only offered to the OS.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/bad_pointer.h"
#include "core/base.h"
#include "core/lock.h"
#include "core/metadata_arena.h"
#include "core/options.h"
#include "core/os.h"
#include "core/page_map.h"
#include "core/run_index.h"
#include "core/span.h"

namespace MINITC_HIDDEN minitc {

// In pages, taken at one moment.
struct PageHeapStats {
  PageCount mapped;    // all runs
  PageCount in_use;    // small and large spans
  PageCount large;     // large spans
  PageCount free;      // kFree, kKept and kReturning
  PageCount returned;  // kReturned
  PageCount peak;      // largest in_use so far
  std::size_t large_count;
  std::size_t runs_returned;   // runs given back to the OS so far
  std::size_t large_acquired;  // large spans so far
  PageCount large_acquired_pages;
};

// A span at one moment.
struct SpanView {
  PageId start;
  PageCount length;
  SpanState state;
  std::uint8_t cls;     // kSmall: the size class, else 0
  std::uint8_t shard;   // kSmall
  std::uint16_t color;  // kLarge: the bytes before its object, else 0
};

class PageHeap {
 public:
  constexpr PageHeap() = default;
  void init(const Os& os, MetadataArena& arena, PageMap& map, const Options& options);

  // Spans for objects of class `cls`, neighbours, the highest first: as many as are `wanted` (at
  // least 1) or fewer; none if the OS refuses. The central cache, which is one of `shard`, gives
  // them their class number, when it has made the bitmaps, and takes it away again before
  // release_small().
  SpanList acquire_small(unsigned cls, std::size_t wanted, unsigned shard = 0)
      MINITC_EXCLUDES(lock_);
  // A span of one object of `pages`, its start a multiple of `alignment` pages (a power of two);
  // null if the OS refuses. The object may begin up to `color_room` bytes behind the start.
  // `leaving` pages, no more than `pages`, of another large span will be moved to this one: the
  // next call of the thread is move_pages(). Until then the two count as one.
  Span* acquire_large(PageCount pages, PageCount alignment, std::size_t color_room = 0,
                      PageCount leaving = {}) MINITC_EXCLUDES(lock_);
  // Gets memory for what acquire_small() gave, if it has none yet.
  void populate(const SpanList& spans) const;
  // Returns the whole pages of the OS in [begin, end), which are in a span in use, but nobody's;
  // the number of bytes returned. What they read as is then undefined.
  std::size_t return_inside(char* begin, const char* end);
  // Whether that is to be done for what has not been needed for a while.
  bool returns_quiet() const { return fixed_bound_ == PageCount{} && huge_pages_ != Options::kYes; }
  std::size_t os_page_bytes() const { return os_->page_bytes; }
  // Counts, and wraps around, the times that age() did something.
  std::uint8_t round() const { return round_.load(std::memory_order_relaxed); }
  // Empties the list.
  void release_small(SpanList& spans) MINITC_EXCLUDES(lock_);
  // Frees the large object at `ptr`; a finding other than kLive if there is none.
  Finding release_large(void* ptr) MINITC_EXCLUDES(lock_);

  // Makes a large span `pages` long without moving it. False if what follows it is not free, or if
  // it is of another mapping.
  bool resize_in_place(Span* span, PageCount pages) MINITC_EXCLUDES(lock_);
  // Moves the pages of `from` to the beginning of `to`, a longer span, with the object where it is
  // in them, and releases `from`. False if the OS refuses; `lost` then tells whether `to` must not
  // be used: the OS took it away with that, or the hard limit leaves no memory for both.
  bool move_pages(Span* from, Span* to, bool& lost) MINITC_EXCLUDES(lock_);

  // In the child of a fork, all locks held: runs that other threads were returning are free.
  void adopt_returning() MINITC_NO_THREAD_SAFETY_ANALYSIS;

  // Gives the metadata arena a free run for good, for when the OS refuses it memory. False if there
  // is none long enough.
  bool feed_arena() MINITC_EXCLUDES(lock_);

  // Makes the first `bytes` of a large span's object, which is the caller's, read as zeros.
  void clear(Span* span, std::size_t bytes);

  // Returns all committed free runs to the OS; the number of bytes returned.
  std::size_t trim() MINITC_EXCLUDES(lock_);
  // Returns part of what has been free for long, as much as the time since the last call allows. To
  // be called now and then; `now_ms` as Os::now_ms. False if it did not look for more of it, since
  // it is less than kAgeMs since it did.
  bool age(std::uint32_t now_ms) MINITC_EXCLUDES(lock_);
  // If the user leaves it to the library: asks for huge pages if the heap is large and written to,
  // and for none if it has returned much in shorter pieces. To be called now and then.
  void review_huge_pages() MINITC_EXCLUDES(lock_);
  // True once after what is in use has grown above the soft limit, and each time it grew on: what
  // the tiers above hold is wanted back.
  bool take_pressure() {
    return is_pressed_.load(std::memory_order_relaxed) &&
           is_pressed_.exchange(false, std::memory_order_relaxed);
  }

  // What page `ptr` is in, for pointers that are no small object. Slow, but for live ones.
  Finding find(const void* ptr) MINITC_EXCLUDES(lock_);
  PageHeapStats stats() MINITC_EXCLUDES(lock_);
  // A request for more has no prospect, whatever may be freed, when it was refused.
  PageCount servable() MINITC_EXCLUDES(lock_);
  // Puts up to `count` spans, of whatever state, into `out`, in order of address from page `from`
  // on; sets `count` to how many they are and `from` to where to go on. What does not hold of one
  // of them, or null.
  const char* list_spans(PageId& from, SpanView* out, std::size_t& count) MINITC_EXCLUDES(lock_);
  // The first invariant that does not hold, or null. Slow.
  const char* violation() MINITC_EXCLUDES(lock_) { return violation_under(lock_, *this); }
  // The same; counts the runs that are looked at.
  const char* violation_locked(std::size_t& seen) const MINITC_REQUIRES(lock_);
  void check() { die_if(violation()); }

  RankedLock<LockRank::kPageHeap>& lock() MINITC_RETURNS_LOCK(lock_) { return lock_; }

 private:
  // Which free pages stay committed when others are returned.
  enum class Keep {
    kNothing,
    kAged,    // but for part of what has been free for long
    kBound,   // as many as there may be at any time
    kAtPeak,  // as many as there may be beside what is in use when that grows
  };

  // What is asked of the kernel for all that is mapped.
  enum class HugePages : std::uint8_t { kNothing, kWanted, kAvoided };

  // Whether a large block looks as if the program had written to it.
  enum class Seen : std::uint8_t { kNothing, kUnwritten, kWritten };

  // Addresses in a row that came from the OS.
  struct Area {
    Area(PageId first, PageCount pages, Area* others) : start(first), length(pages), next(others) {}

    PageId start;
    PageCount length;
    Area* next;
  };

  // Why an allocation found no run, at one moment.
  struct Shortage {
    bool exists = false;
    bool may_end = false;        // enough is free, but not there, or not in one state
    bool others_return = false;  // other threads have runs on their way to the OS
    std::uint32_t returns = 0;   // of returns_
  };

  // More addresses that an allocation wants, which come between two holds of the lock.
  struct Growth {
    PageCount least;  // none if it wants no more
    PageCount chunk;  // if possible
    bool is_refused = false;
  };

  // Whether a range shares no kernel page with its neighbours.
  bool is_whole(PageId start, PageCount length) const {
    return ((start.address() | length.bytes()) & (os_->page_bytes - 1)) == 0;
  }
  Shortage shortage_locked(PageCount pages, PageCount leaving) MINITC_REQUIRES(lock_);
  bool may_end(const Shortage& shortage) MINITC_EXCLUDES(lock_);
  bool shrink(Span* span, PageCount pages) MINITC_EXCLUDES(lock_);
  bool extend(Span* span, PageCount pages) MINITC_EXCLUDES(lock_);
  Span* room_behind_locked(const Span& span, PageCount extra) const MINITC_REQUIRES(lock_);
  bool extend_locked(Span* span, Span* next, PageCount extra) MINITC_REQUIRES(lock_);
  RunIndex& index_of(const Span* run) MINITC_REQUIRES(lock_) {
    return run->state == SpanState::kFree ? free_ : returned_;
  }
  template <typename Take>
  bool acquire(PageCount pages, PageCount leaving, Take&& take) MINITC_EXCLUDES(lock_);
  void take_small_locked(unsigned cls, std::size_t wanted, unsigned shard, SpanList& spans,
                         Growth& growth) MINITC_REQUIRES(lock_);
  Span* take_locked(PageCount pages, PageCount alignment, Growth& growth) MINITC_REQUIRES(lock_);
  Span* run_at_locked(PageId page, SpanState state) const MINITC_REQUIRES(lock_);
  Span* join_locked(PageCount pages) MINITC_REQUIRES(lock_);
  void annex_locked(Span* run, PageCount before, PageCount after) MINITC_REQUIRES(lock_);
  static unsigned kept_for(unsigned cls, unsigned shard) { return shard * kNumClasses + cls; }
  Span* take_kept_locked(unsigned list) MINITC_REQUIRES(lock_);
  void keep_locked(Span* span) MINITC_REQUIRES(lock_);
  void dissolve_locked(PageCount pages) MINITC_REQUIRES(lock_);
  Span* fit_committed_locked(PageCount pages, PageCount alignment) MINITC_REQUIRES(lock_);
  void plan_growth_locked(PageCount pages, Growth& growth) MINITC_REQUIRES(lock_);
  bool grow(const Growth& growth) MINITC_EXCLUDES(lock_);
  void advise_areas() MINITC_EXCLUDES(lock_);
  bool has_many_pieces_locked() const MINITC_REQUIRES(lock_);
  void stop_asking_if_unlikely_locked(PageCount block) MINITC_REQUIRES(lock_);
  bool is_written_locked(PageCount more) const MINITC_REQUIRES(lock_);
  Seen look_at(const void* ptr) const;
  void note_seen_locked(Seen seen, PageCount length) MINITC_REQUIRES(lock_);
  void round_to_huge_pages_locked(Span* run) MINITC_REQUIRES(lock_);
  void note_area_locked(PageId start, PageCount length) MINITC_REQUIRES(lock_);
  Span* split_locked(Span* run, PageCount pages) MINITC_REQUIRES(lock_);
  Span* cut_locked(Span* run, PageCount head, PageCount pages) MINITC_REQUIRES(lock_);
  Span* describe_locked(PageId start, PageCount pages, SpanState state) MINITC_REQUIRES(lock_);
  bool feed_arena_locked() MINITC_REQUIRES(lock_);
  Span* coalesce_locked(Span* run) MINITC_REQUIRES(lock_);
  void merge_locked(Span* run, Span* other) MINITC_REQUIRES(lock_);
  void insert_locked(Span* run) MINITC_REQUIRES(lock_) {
    run->list_in(round());
    index_of(run).insert(run);
  }
  void put_in_use_locked(Span* run, SpanState state) MINITC_REQUIRES(lock_);
  void put_back_locked(Span* span, SpanState state) MINITC_REQUIRES(lock_);
  Span* large_at(const void* ptr) const;
  Finding find_locked(const void* ptr) MINITC_REQUIRES(lock_);
  PageCount bound_locked(Keep keep) const MINITC_REQUIRES(lock_);
  PageCount own_bound_locked(Keep keep) const MINITC_REQUIRES(lock_);
  // What counts for the limits, but for free pages: spans in use and metadata.
  PageCount held_locked() const MINITC_REQUIRES(lock_) {
    return used_locked() + PageCount::of_bytes(arena_->reserved_bytes());
  }
  // In use, with or soon with memory.
  PageCount used_locked() const MINITC_REQUIRES(lock_) { return stats_.in_use - leaving_; }
  // Whether `pages` without memory may get some.
  bool may_commit_locked(PageCount pages) const MINITC_REQUIRES(lock_) {
    return held_locked() + committed_locked() + returning_ + pages <= hard_limit_;
  }
  void note_use_locked() MINITC_REQUIRES(lock_);
  // Free pages that have memory behind them.
  PageCount committed_locked() const MINITC_REQUIRES(lock_) { return free_.pages() + kept_pages_; }
  bool has_excess_locked(Keep keep) const MINITC_REQUIRES(lock_) {
    return committed_locked() > bound_locked(keep);
  }
  void note_taken_locked(SpanState state, PageCount pages) MINITC_REQUIRES(lock_);
  Span* take_excess_locked(PageCount bound, Keep keep) MINITC_REQUIRES(lock_);
  PageCount unit_locked(Keep keep) const MINITC_REQUIRES(lock_);
  void begin_return_locked(Span* run) MINITC_REQUIRES(lock_);
  Span* halve_locked(Span* run, Keep keep) MINITC_REQUIRES(lock_);
  void end_return_locked(Span* run, bool returned) MINITC_REQUIRES(lock_);
  bool may_move_locked() const MINITC_REQUIRES(lock_) {
    return mappings_ < kMaxMoved && lost_targets_ < kMaxLost;
  }
  void begin_mapping_locked(Span* run) MINITC_REQUIRES(lock_);
  void end_mapping_locked(Span* run) MINITC_REQUIRES(lock_);
  void drop_locked(Span* span) MINITC_REQUIRES(lock_);
  bool end_move_locked(Span* from, Span* to, Move result) MINITC_REQUIRES(lock_);
  void forget_large_locked(const Span* span) MINITC_REQUIRES(lock_) {
    stats_.large -= span->length;
    --stats_.large_count;
  }
  // A mapping of its own goes with its pages, so that mappings do not add up. Where there are too
  // many already, it may stay.
  bool give_back(const Span* run) const {
    if (run->mapping != 0 && os_->renew(run->start.ptr(), run->length.bytes())) {
      advise(run->start, run->length);
      return true;
    }
    return give_back(run->start.ptr(), run->length.bytes());
  }
  // Asks for what is wanted of a new mapping.
  void advise(PageId start, PageCount length) const {
    const HugePages asked = asked_.load(std::memory_order_relaxed);
    if (asked == HugePages::kNothing) return;
    os_->want_huge_pages(start.ptr(), length.bytes(), asked == HugePages::kWanted);
  }
  bool wants_huge_pages() const {
    return asked_.load(std::memory_order_relaxed) == HugePages::kWanted;
  }
  bool avoids_huge_pages() const {
    return asked_.load(std::memory_order_relaxed) == HugePages::kAvoided;
  }
  // Whether either may change.
  bool chooses_huge_pages() const { return huge_pages_ == Options::kAuto; }
  bool give_back(void* start, std::size_t bytes) const {
    return (offers_ && os_->offer(start, bytes)) || os_->decommit(start, bytes);
  }
  PageCount return_excess(Keep keep, PageCount most = PageCount{SIZE_MAX}) MINITC_EXCLUDES(lock_);
  std::size_t begin_returns(Keep keep, PageCount done, PageCount& most, Span* (&runs)[kReturnBatch],
                            std::size_t& refused) MINITC_EXCLUDES(lock_);
  PageCount end_returns(Span* const* runs, std::size_t count, bool returned, Keep keep)
      MINITC_EXCLUDES(lock_);
  const char* violation_of_locked(const Span* run, SpanState state) const MINITC_REQUIRES(lock_);

  RankedLock<LockRank::kPageHeap> lock_;

  // Constant after init.
  const Os* os_ = nullptr;
  MetadataArena* arena_ = nullptr;
  PageMap* map_ = nullptr;
  PageCount fixed_bound_;
  PageCount soft_limit_;
  PageCount hard_limit_;
  bool offers_ = false;         // memory is offered to the OS, not decommitted
  std::size_t huge_pages_ = 0;  // Options::kNo, kYes or kAuto

  std::atomic<HugePages> asked_{HugePages::kNothing};
  std::atomic<std::size_t> bytes_inside_{0};        // returned inside spans so far
  PageCount written_ MINITC_GUARDED_BY(lock_);      // large, freed, that had been written to
  Area* areas_ MINITC_GUARDED_BY(lock_) = nullptr;  // kAuto: all

  RunIndex free_ MINITC_GUARDED_BY(lock_);            // kFree
  RunIndex returned_ MINITC_GUARDED_BY(lock_);        // kReturned
  unsigned kept_lists_ MINITC_GUARDED_BY(lock_) = 0;  // that were ever used
  PageCount kept_pages_ MINITC_GUARDED_BY(lock_);     // in all of them
  unsigned kept_next_ MINITC_GUARDED_BY(lock_) = 0;   // the list whose turn to dissolve is next
  PageHeapStats stats_ MINITC_GUARDED_BY(lock_) = {};
  PageCount returning_ MINITC_GUARDED_BY(lock_);          // kReturning
  SpanList returning_runs_ MINITC_GUARDED_BY(lock_);      // those
  std::atomic<std::uint32_t> returns_{0};                 // counts ends of returns; a futex word
  bool return_awaited_ MINITC_GUARDED_BY(lock_) = false;  // a thread may sleep on returns_
  PageCount reused_ MINITC_GUARDED_BY(lock_);             // free with memory, and taken, since…
  std::uint32_t reused_ms_ MINITC_GUARDED_BY(lock_) = 0;  // … then
  PageCount reused_before_ MINITC_GUARDED_BY(lock_);      // in the kReuseMs before
  PageCount given_back_ MINITC_GUARDED_BY(lock_);         // for the bound since aged_ms_, still is
  PageCount missed_ MINITC_GUARDED_BY(lock_);             // of those, taken again lately
  PageCount aged_ MINITC_GUARDED_BY(lock_);               // free for long, and soon returned
  PageCount least_free_ MINITC_GUARDED_BY(lock_);         // committed, but for those, since…
  std::uint32_t aged_ms_ MINITC_GUARDED_BY(lock_) = 0;    // … then
  std::uint32_t ticked_ms_ MINITC_GUARDED_BY(lock_) = 0;  // of the last age()
  std::atomic<std::uint8_t> round_{0};                    // see round()
  PageCount pressed_ MINITC_GUARDED_BY(lock_);            // in use when is_pressed_ was last set
  std::atomic<bool> is_pressed_{false};
  std::uint32_t decommit_pause_ MINITC_GUARDED_BY(lock_) = 0;
  std::uint16_t last_mapping_ MINITC_GUARDED_BY(lock_) = 0;           // of moved runs
  std::size_t mappings_ MINITC_GUARDED_BY(lock_) = 0;                 // of moved pages
  PageCount leaving_ MINITC_GUARDED_BY(lock_);                        // of moves under way
  std::size_t lost_targets_ MINITC_GUARDED_BY(lock_) = 0;             // of moves
  SpanList kept_[kMaxShards * kNumClasses] MINITC_GUARDED_BY(lock_);  // kKept: [kept_for(…)]
};

}  // namespace minitc
