// The three tiers composed: what the C and C++ interfaces call.
//
// Thread safety: all methods may be called from any thread once init() has returned.
//
// The fast paths read as the specification does: find the class, find the stack, pop or push. All
// that is odd fails one of two tests and is one tail call to a slow function:
// - a size or an address out of bounds, and anything before init(), when both bounds are 0;
// - a stack that is empty (full for free): also of a thread that has no cache, or not any more, and
//   for a pointer whose page is none of small objects, since class 0 has no stack.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/bad_pointer.h"
#include "core/base.h"
#include "core/metadata_arena.h"
#include "core/options.h"
#include "core/os.h"
#include "core/page_heap.h"
#include "core/page_map.h"
#include "core/shards.h"
#include "core/size_class.h"
#include "core/thread_cache.h"

namespace MINITC_HIDDEN minitc {

// The empty caches of threads that have not allocated yet, and of those that are past their exit.
extern constinit ThreadCache g_no_cache;
extern constinit ThreadCache g_cache_gone;

// This thread's cache. Initial-exec: a load from the thread pointer. Null only before the dynamic
// loader has set up the main thread's TLS, when the heap is not ready either.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadCache* t_cache;

// The cache that this thread's slow path is at work on, or null; t_cache is then &g_cache_gone, so
// that signal handlers leave it alone.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadCache* t_leased_cache;

// This thread's cache, or null if it has none.
inline ThreadCache* current_cache() {
  return t_cache == &g_no_cache || t_cache == &g_cache_gone ? nullptr : t_cache;
}

// What region pools hold, as they tell it: see RegionPool::count().
struct PoolTotals {
  std::atomic<std::size_t> pools{0};
  std::atomic<std::size_t> bytes{0};
};

class Heap {
 public:
  constexpr Heap() = default;

  // `this` must be zero-initialised. False if the system cannot give what is needed to tell when a
  // thread ends; the heap then works without thread caches.
  bool init(const Os& os, const Options& options);
  // From now on the fast paths serve requests.
  void open() { small_slots_ = kClassOfSlot.size(); }

  // What use(object, cls) makes of a new object of at least `bytes`, or what slow(bytes) returns if
  // the fast path has none.
  template <typename Slow, typename Use>
  MINITC_HOT void* allocate(std::size_t bytes, Slow slow, Use use) {
    const std::size_t slot = slot_of(bytes);
    if (slot >= small_slots_) [[unlikely]]
      return slow(bytes);
    ThreadCache& cache = *t_cache;
    const unsigned cls = kClassOfSlot[slot];
    if (cache.is_empty(cls)) [[unlikely]]
      return slow(bytes);
    void* const object = cache.pop(cls);
    if (object == nullptr) __builtin_unreachable();
    return use(object, cls);
  }
  template <typename Slow>
  MINITC_HOT void* allocate(std::size_t bytes, Slow slow) {
    return allocate(bytes, slow, [](void* object, unsigned) { return object; });
  }
  // Frees the object at `ptr`, or leaves it to slow(ptr).
  template <typename Slow>
  MINITC_HOT void deallocate(void* ptr, Slow slow) {
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(ptr);
    if (!map_.covers(address)) [[unlikely]]
      return slow(ptr);
    const unsigned cls = map_.class_at(address);
    ThreadCache& cache = *t_cache;
    if (cache.is_full(cls)) [[unlikely]]
      return slow(ptr);
    cache.push(cls, ptr);
  }
  void* allocate(std::size_t bytes) {
    return allocate(bytes, [this](std::size_t n) { return allocate_slow(n); });
  }
  void deallocate(void* ptr) {
    deallocate(ptr, [this](void* p) { deallocate_slow(p); });
  }

  // A new object of at least `bytes` (0 counts as 1); null if the OS refuses or if `bytes` is above
  // PTRDIFF_MAX.
  MINITC_COLD void* allocate_slow(std::size_t bytes);
  // The same, aligned to `alignment`, a power of two.
  void* allocate_aligned(std::size_t bytes, std::size_t alignment);
  // The same, all zero.
  void* allocate_zeroed(std::size_t bytes);
  // The three below report bad pointers (BadPointers::report), with `site` as the call's. Where
  // they are ignored the program goes on, and nothing has happened.
  // Frees an object.
  MINITC_COLD void deallocate_slow(void* ptr, std::uintptr_t site = 0);
  // The object at `ptr`, with all its bytes, moved if need be to where it has `bytes`; null, and
  // the object unchanged, if the OS refuses. With 0 bytes it is freed, and null. Null for a bad
  // pointer.
  void* resize(void* ptr, std::size_t bytes, std::uintptr_t site = 0);
  // The bytes of the object at `ptr` that the program may use; 0 for a bad pointer.
  std::size_t usable_size(const void* ptr, std::uintptr_t site = 0);
  // As usable_size(), if there is a small object at `ptr`; else 0, and nothing is reported.
  std::size_t small_size(const void* ptr) {
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(ptr);
    const unsigned cls = map_.covers(address) ? map_.class_at(address) : 0;
    return cls != 0 && shards_.first()[cls].has_away(ptr) ? kSizeClasses[cls].bytes : 0;
  }
  // Where `ptr` points. An object in a thread cache counts as live.
  Finding find(const void* ptr);
  // A plugin is loaded that may use libc's malloc.
  void expect_deepbind() { bad_.expect_deepbind(); }

  // Gives free memory back to the OS: all that is in whole free pages once this thread's cache and
  // the central stores are emptied. The bytes returned.
  std::size_t trim();

  // This thread ends: its cache goes, for good.
  void retire_cache();

  // Gives what this thread's cache holds, and its share of the budget, back.
  void flush_cache();

  // The first invariant that does not hold, or null: of tiers 2 and 3, the metadata, and this
  // thread's cache. Slow.
  const char* violation();
  void check() { die_if(violation()); }
  // Dies if one of tier 1 does not hold, while no other thread uses the heap.
  void check_caches();
  // Of the list of caches; counts them.
  const char* violation_locked(std::size_t& seen) const MINITC_REQUIRES(threads_lock_);

  PoolTotals& pool_totals() { return pool_totals_; }

 private:
  friend class ForkHold;
  friend class Inspection;
  friend struct Snapshot;

  // This thread's cache, made if it has none yet; null if it may have none.
  ThreadCache* own_cache();
  ThreadCache* cache_to_free();
  ThreadCache* adopt_cache();
  // `is_zero`, if given, becomes true if the object is known to be all zero.
  void* allocate_small(unsigned cls, bool* is_zero = nullptr);
  void* take_small(unsigned cls, bool* is_zero);
  void* allocate_large(std::size_t bytes, std::size_t alignment, bool zeroed);
  // After a large block was asked for.
  void look_after();
  void* resize_large(Span* span, std::size_t bytes);
  Span* acquire_roomy(std::size_t bytes, PageCount leaving = {});
  // Ends the life of a cache that is this thread's for good.
  void bury(ThreadCache* cache);
  void rob_idle_caches();
  void return_quiet();
  // What a slow path does beside its work.
  void come_by(ThreadCache* cache);
  // Gives a thread that is in others' way a shard where there are fewer.
  void spread(ThreadCache* cache);
  // What is to be done now and then. There is no thread to do it: slow paths come by.
  void tick();
  // Makes free pages of what this thread's cache, the central stores and fresh spans hold.
  void gather();
  // The bytes of the object at `ptr`; 0 for a bad pointer, which is reported.
  std::size_t size_or_report(const void* ptr, Call call);

  std::size_t small_slots_ = 0;  // slots that the fast path serves; 0 until open()
  // What init() writes lies together, from the end of the map to the beginning of the page heap: a
  // program that hardly allocates has one page for it.
  PageMap map_;
  Os os_ = {};
  bool use_caches_ = false;
  pthread_key_t exit_key_ = 0;
  unsigned processors_ = 0;
  std::ptrdiff_t cache_total_bytes_ = 0;  // budget of all thread caches
  alignas(64) CacheShare share_;
  std::atomic<std::size_t> quiet_left_{0};     // central caches that return_quiet() has to look at
  std::atomic<std::uint32_t> lone_caches_{0};  // of threads that had only freed before
  RankedLock<LockRank::kThreads> threads_lock_;
  ThreadCache* threads_ MINITC_GUARDED_BY(threads_lock_) = nullptr;
  ThreadCache* next_look_ MINITC_GUARDED_BY(threads_lock_) = nullptr;  // null: at the first
  alignas(64) MetadataArena arena_;
  BadPointers bad_;
  PoolTotals pool_totals_;
  PageHeap pages_;
  Shards shards_;
};

extern constinit Heap g_heap;

}  // namespace minitc
