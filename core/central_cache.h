// Tier 2: the free objects of one size class, shared by all threads of a shard (shards.h).
//
// Objects come and go as arrays of pointers. A batch that a thread spills is kept as it is in the
// store, if there is room, for the next thread that refills; otherwise its objects go home into
// their spans. Objects are never touched: which are free is in the spans' bitmaps. But whole pages
// of those that are free go back to the OS when their span has lain for a while.
//
// Thread safety: all public methods may be called from any thread. The lock guards the store and
// the spans' lists and `free` bits; under it no system call is made. A span's `home` bits are
// atomic: the thread that has the objects in hand changes them, mostly outside the lock. Where bad
// pointers are ignored it does so under the lock, as then it may have none in hand: a span has its
// class number while it has bitmaps, and that too is guarded by the lock.
//
// Invariants: I7  Every object of a small span is in exactly one place: with the program or in a
//                 thread cache (home 0, free 0), in the store (home 1, free 0), in its span
//                 (home 1, free 1).
//             I8  A span's free_count is the number of its free bits; a span with some and not all
//                 objects free is in the list for that many, one with all of them free is fresh,
//                 one whose pages are being returned is in a list of these, any other in none.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/bad_pointer.h"
#include "core/base.h"
#include "core/lock.h"
#include "core/metadata_arena.h"
#include "core/page_heap.h"
#include "core/page_map.h"
#include "core/size_class.h"
#include "core/span.h"

namespace MINITC_HIDDEN minitc {

// Of one class, in objects but for `spans`, taken at one moment.
struct CentralStats {
  std::size_t spans;
  std::size_t objects;        // in all spans
  std::size_t free;           // in spans
  std::size_t stored;         // in the store
  std::size_t refilled;       // taken from here so far, also by the parent before a fork
  std::size_t partial_spans;  // of which some objects are free, and not all
  std::size_t partial_free;   // free objects in those
};

// Of one span, at one moment.
struct SpanUse {
  bool is_mine = false;  // else the rest says nothing
  std::size_t free_objects = 0;
  const char* violation = nullptr;  // what does not hold of its bitmaps
};

// How many of this thread's refills came after one by another thread from the same cache. To be set
// to 0 by who counts.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local std::uint32_t t_met_others = 0;

// What the central caches of all classes stand on.
struct CentralBase {
  MetadataArena* arena = nullptr;
  PageMap* map = nullptr;
  PageHeap* heap = nullptr;
  BadPointers* bad = nullptr;
};

class alignas(64) CentralCache {
 public:
  constexpr CentralCache() = default;

  // From now on, if not before, the cache is that of `cls` in `shard`, on `base`.
  void open(const CentralBase& base, unsigned cls, unsigned shard) MINITC_EXCLUDES(lock_);
  // Puts up to `count` (at least 1) objects of class `cls` into `out` and returns how many; 0 if
  // the OS refuses, or with kNo if it would have to be asked. Opens a cache of shard 0: no class
  // has objects before, and one that is never used is never written to. If `is_zero` is given
  // `count` is 1, and it becomes true if the object is known to be all zero.
  enum class Grow : bool { kNo, kYes };
  std::size_t refill(const CentralBase& base, unsigned cls, void** out, std::size_t count,
                     bool* is_zero = nullptr, Grow grow = Grow::kYes) MINITC_EXCLUDES(lock_);
  // For another shard: out of spans that the cache has, or only out of those in use in part that
  // have lain for a while.
  std::size_t lend(void** out, std::size_t count, bool only_quiet) MINITC_EXCLUDES(lock_);
  // Takes `count` pointers back, but for objects of other shards; how many it took. The others then
  // stand behind those, which are undefined. One that is not an object of this class that is away
  // from home is reported, with `call`; if that returns, it is left out.
  std::size_t spill(void** objects, std::size_t count, Call call) MINITC_EXCLUDES(lock_);

  // `ptr` is an object of this class that is with the program or in a thread cache.
  bool has_away(const void* ptr) const {
    const Span* const span = span_of_page(ptr);
    if (span == nullptr || span->cls() != cls_) return false;
    const std::size_t offset = reinterpret_cast<std::uintptr_t>(ptr) - span->start.address();
    const SizeClass& c = size_class();
    const std::size_t index = object_index(c, offset);
    return index < c.objects && index * c.bytes == offset &&
           (span->home_word(index).load(std::memory_order_relaxed) & Span::mask_of(index)) == 0;
  }
  // Where in this class's span `ptr` points; its page is one of this class.
  Finding find(const void* ptr) const;
  // Sends the store's objects home, and fresh spans back.
  void trim() MINITC_EXCLUDES(lock_);
  // Returns whole pages of free objects in up to `spans` spans to the OS, the emptiest first:
  // of all, or if `only_quiet` of those that have lain for a while. `spans` becomes how many more
  // there might have been, and the bytes that were returned are the result.
  std::size_t return_pages(bool only_quiet, std::size_t& spans) MINITC_EXCLUDES(lock_);
  // In the child of a fork, all locks held: spans whose pages other threads were returning are in
  // use as before.
  void adopt_returning() MINITC_NO_THREAD_SAFETY_ANALYSIS;
  CentralStats stats() MINITC_EXCLUDES(lock_);
  // Of the span that begins at `start`, if it is one of this class.
  SpanUse use_of(PageId start) MINITC_EXCLUDES(lock_);
  // The first invariant that does not hold, or null. Slow.
  const char* violation() MINITC_EXCLUDES(lock_) { return violation_under(lock_, *this); }
  // The same; counts the words and objects that are looked at.
  const char* violation_locked(std::size_t& seen) const MINITC_REQUIRES(lock_);
  void check() { die_if(violation()); }

  RankedLock<LockRank::kCentral>& lock() MINITC_RETURNS_LOCK(lock_) { return lock_; }

 private:
  // Two lists for each bit width of the number of free objects: the fullest spans are in the first
  // two. In the second of two are those whose free pages have been returned.
  static constexpr std::size_t kLists = 24;
  static constexpr std::size_t kNoList = 0;
  static constexpr std::uint32_t kResidentLists = 0x555555;
  static_assert(kPageBytes / kGrain < std::size_t{1} << (kLists / 2 - 1));
  // Words of the largest bitmap.
  static constexpr std::size_t kMaxWords = kPageBytes / kGrain / 64;

  struct Place {  // of a pointer in a span; `finding` tells if the rest is valid
    Span* span;
    std::size_t index;
    Finding finding;
  };

  const SizeClass& size_class() const { return kSizeClasses[cls_]; }
  Span* span_of_page(const void* ptr) const { return base_.map->span_at(PageId::of(ptr)); }
  Span* span_of(const void* ptr) const;
  bool is_of_other_shard(const void* ptr) const;
  Place place_of(const void* ptr) const;
  template <typename Visit>
  std::size_t for_each_word(void** objects, std::size_t count, Visit&& visit) const;
  template <typename Put>
  bool mark_home(void** objects, std::size_t count, Put&& put);
  std::size_t sort_tagged(void** objects, std::size_t count, Call call) const;
  void dismiss(void** objects, std::size_t count);
  SpanList new_spans(std::size_t objects, std::size_t held) MINITC_EXCLUDES(lock_);
  bool make_bits(Span* span);
  void delete_spans(SpanList& empties) MINITC_EXCLUDES(lock_);
  void make_store() MINITC_EXCLUDES(lock_);
  void add_spans_locked(SpanList& spans) MINITC_REQUIRES(lock_);
  void remove_span_locked(Span* span, SpanList& empties) MINITC_REQUIRES(lock_);
  // The list for a span with so many free objects; one with none or all is in none.
  std::size_t list_of(const Span& span, std::size_t free) const {
    if (free == size_class().objects) return kNoList;
    return 2 * static_cast<std::size_t>(std::bit_width(free)) +
           static_cast<std::size_t>(span.backing);
  }
  void list_locked(Span* span, std::size_t list) MINITC_REQUIRES(lock_);
  void unlist_locked(Span* span, std::size_t list) MINITC_REQUIRES(lock_);
  void change_free_count_locked(Span* span, std::size_t count) MINITC_REQUIRES(lock_);
  void relist_locked(Span* span, std::size_t before) MINITC_REQUIRES(lock_);
  Span* begin_return(bool only_quiet, std::uint64_t (&free)[kMaxWords], std::size_t& count)
      MINITC_EXCLUDES(lock_);
  std::size_t return_free(const Span& span, const std::uint64_t* free) const;
  void end_return(Span* span, std::size_t count) MINITC_EXCLUDES(lock_);
  void open_locked(const CentralBase& base, unsigned cls, unsigned shard) MINITC_REQUIRES(lock_);
  std::size_t begin_refill_locked(void** out, std::size_t count) MINITC_REQUIRES(lock_);
  // One of the fullest spans that are in use in part, else one that is all free, which is then in
  // no list. Null if there is none.
  Span* next_to_carve_locked() MINITC_REQUIRES(lock_) {
    const std::uint32_t occupied = occupied_.load(std::memory_order_relaxed);
    return occupied != 0 ? lists_[std::countr_zero(occupied)].front() : fresh_.pop();
  }
  Span* quiet_locked() const MINITC_REQUIRES(lock_);
  std::size_t carve_locked(Span* span, void** out, std::size_t count) MINITC_REQUIRES(lock_);
  void put_locked(Span* span, std::size_t index, std::uint64_t mask, std::size_t count,
                  SpanList& empties) MINITC_REQUIRES(lock_);
  void send_home_locked(void** objects, std::size_t count, SpanList& empties)
      MINITC_REQUIRES(lock_);
  std::size_t store_room_locked() const MINITC_REQUIRES(lock_);
  const char* violation_of_locked(Span& span) const MINITC_REQUIRES(lock_);
  std::size_t least_stored() const {
    return std::min<std::size_t>(kMinStored, size_class().batch / 4U);
  }
  std::size_t store_capacity() const {
    return size_class().bytes > kMaxStoredBytes ? least_stored()
                                                : 2 * std::size_t{size_class().batch};
  }

  RankedLock<LockRank::kCentral> lock_;

  // Constant once open; on a line of its own, since it is read without the lock.
  alignas(64) unsigned cls_ = 0;
  std::uint16_t owner_ = 0;  // Span::owner of its spans
  CentralBase base_;

  std::atomic<void**> store_{nullptr};  // made at the first spill; what it points to is guarded
  // A hint: the last spill found no room in the store, and nothing was taken out since.
  std::atomic<bool> store_is_full_{false};
  std::size_t stored_ MINITC_GUARDED_BY(lock_) = 0;
  SpanList lists_[kLists] MINITC_GUARDED_BY(lock_);         // [list_of(span)]
  std::atomic<std::uint32_t> occupied_{0};                  // bit i: lists_[i] is not empty; a hint
  SpanList returning_ MINITC_GUARDED_BY(lock_);             // Backing::kReturning
  SpanList fresh_ MINITC_GUARDED_BY(lock_);                 // came with others, not carved yet
  std::size_t partial_spans_ MINITC_GUARDED_BY(lock_) = 0;  // in lists_
  std::size_t spans_ MINITC_GUARDED_BY(lock_) = 0;
  std::size_t free_objects_ MINITC_GUARDED_BY(lock_) = 0;
  std::size_t refilled_ MINITC_GUARDED_BY(lock_) = 0;
  // The last that refilled: its t_met_others.
  const std::uint32_t* refiller_ MINITC_GUARDED_BY(lock_) = nullptr;
};

}  // namespace minitc
