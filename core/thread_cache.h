// Tier 1: one thread's free objects, a stack of pointers per size class.
//
//   base      floor                 cursor            limit
//    |  slack   |  objects, oldest first  |  room        |
//
// malloc pops while cursor > floor, free pushes while cursor < limit, and neither does more: an
// all-zero cache has stacks that are empty and full at once, and stands for "no cache yet" and
// "cache gone". Class 0, "not a small object", is always so.
//
// The pointer arrays are blocks of powers of two that double at each miss and each overflow (slow
// start) and shrink again: every kScavengePeriod slow calls the floor of each class is raised to
// half of what is in it; a floor that was never reached by the next time shows slack, which is
// spilled. Capacity in bytes is drawn from a budget that all threads share.
//
// Thread safety: all methods by the owner only, but for cached_objects().
// Invariants: I9   base <= floor <= cursor <= limit, and limit - base is 0 or a power of two.
//             I10  The capacities of all caches, in bytes, plus what is left of the budget are the
//             cap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/central_cache.h"
#include "core/metadata_arena.h"
#include "core/size_class.h"

namespace MINITC_HIDDEN minitc {

// What all thread caches share. `budget_bytes` is what they may still add to their capacities.
struct CacheShare {
  CentralBase base;
  CentralCache* central = nullptr;  // kNumClasses of them
  std::atomic<std::ptrdiff_t> budget_bytes{0};
};

class ThreadCache {
 public:
  constexpr ThreadCache() = default;
  explicit ThreadCache(CacheShare& share) : share_(&share) {}

  MINITC_HOT bool is_empty(unsigned cls) const { return cursor_[cls] == floor_[cls]; }
  MINITC_HOT bool is_full(unsigned cls) const { return cursor_[cls] == limit_[cls]; }
  // The cursor moves last, in one instruction that reads it anew: a signal handler that comes
  // before it and frees what it allocates leaves the stack as it was.
  MINITC_HOT void* pop(unsigned cls) {
    void* const object = cursor_[cls][-1];
    std::atomic_signal_fence(std::memory_order_seq_cst);
    --cursor_[cls];
    return object;
  }
  MINITC_HOT void push(unsigned cls, void* ptr) {
    *cursor_[cls] = ptr;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    ++cursor_[cls];
  }

  // An object of a class that is_empty(), or null if the OS refuses.
  MINITC_COLD void* refill(unsigned cls);
  // Takes `ptr` of a class that is_full(); `site`, for the blame: of the call of free.
  MINITC_COLD void spill(unsigned cls, void* ptr, std::uintptr_t site);
  // Gives all objects and all capacity back. The cache is then as new.
  void flush();

  // May be called by any thread; approximate while the owner is at work.
  std::size_t cached_objects(unsigned cls) const;
  // All below while the owner is not at work.
  std::size_t capacity_bytes() const;
  // The first invariant that does not hold, or null.
  const char* violation() const;
  void check() const { die_if(violation()); }

  // The list of all caches, guarded by the heap's threads lock.
  ThreadCache* prev = nullptr;
  ThreadCache* next = nullptr;
  bool lone = false;  // counted in the heap's lone_caches_

 private:
  CentralCache& central(unsigned cls) const { return share_->central[cls]; }
  std::size_t refill(unsigned cls, void** out, std::size_t count) {
    return central(cls).refill(share_->base, cls, out, count);
  }
  std::size_t capacity(unsigned cls) const {
    return static_cast<std::size_t>(limit_[cls] - base_[cls]);
  }
  bool set_capacity(unsigned cls, std::size_t objects);
  bool turn(unsigned cls, bool to_frees);
  bool grow(unsigned cls, bool turned);
  void spill_oldest(unsigned cls, std::size_t count);
  void count_slow_call();
  void scavenge(unsigned cls);
  // Calls visit(cls) for each class that has an array.
  template <typename Visit>
  void for_each_class(Visit&& visit);

  // Hot: the first three are all that malloc and free look at.
  void** cursor_[kNumClasses] = {};  // one past the newest object
  void** floor_[kNumClasses] = {};
  void** limit_[kNumClasses] = {};
  void** base_[kNumClasses] = {};
  std::uint64_t in_use_[(kNumClasses + 63) / 64] = {};    // bit cls: the class has an array
  std::uint64_t ran_full_[(kNumClasses + 63) / 64] = {};  // bit cls: full the last time, not empty
  std::uint32_t slow_calls_ = 0;                          // since the last look at slack
  CacheShare* share_ = nullptr;
};

}  // namespace minitc
