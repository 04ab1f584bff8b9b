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
// start), if these come in quick succession, and halve if they are rare. Every kScavengePeriod slow
// calls the floor of each class is raised to half of what is in it; a floor that was never reached
// by the next time shows slack, which is spilled. Capacity in bytes is drawn from a budget that all
// threads share.
//
// Another thread may park a cache: floors go up and limits down, so that the owner's next malloc or
// free takes the slow path, where it takes its cache back. If it does not for long, it is idle, and
// the other may rob the cache. The owner may be stopped in the middle of a pop or a push, of which
// it can be in one only; so the newest object of each class and the array stay where they are.
//
//   base           limit      cursor               floor
//    |  robbed      | objects  |                     (beyond all addresses)
//
// Thread safety: all methods by the owner while it holds the lease, but for pop() and push(), which
// need none, and for those that say otherwise.
// Invariants: I9   base <= floor <= cursor <= limit, unless the cache is parked or robbed.
//             I10  What all caches have drawn, in bytes, plus what is left of the budget is the
//             cap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/metadata_arena.h"
#include "core/shards.h"
#include "core/size_class.h"

namespace MINITC_HIDDEN minitc {

// What all thread caches share. `budget_bytes` is what they may still add to their capacities.
struct CacheShare {
  Shards* shards = nullptr;
  MetadataArena* arena = nullptr;
  std::atomic<std::ptrdiff_t> budget_bytes{0};
  std::atomic<bool> is_short{false};        // a cache was refused capacity
  std::uint32_t (*now_ms)() = nullptr;      // Os::now_ms
  std::atomic<std::uint32_t> ticked_ms{0};  // the clock when Heap::tick() last did something
};

class ThreadCache {
 public:
  constexpr ThreadCache() = default;
  explicit ThreadCache(CacheShare& share) : share_(&share), shard_(share.shards->first()) {}

  MINITC_HOT bool is_empty(unsigned cls) const { return cursor_[cls] <= floor_[cls]; }
  MINITC_HOT bool is_full(unsigned cls) const { return cursor_[cls] >= limit_[cls]; }
  // The cursor moves last, in one instruction that reads it anew: a signal handler that comes
  // before it and frees what it allocates leaves the stack as it was. The program will write to
  // what it gets, so the next object's line is asked for. Below the last lies what precedes the
  // array: any value, but no address is too wrong for a prefetch.
  MINITC_HOT void* pop(unsigned cls) {
    void** const cursor = cursor_[cls];
    void* const object = as_result(cursor[-1]);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    --cursor_[cls];
    std::atomic_signal_fence(std::memory_order_seq_cst);
    __builtin_prefetch(peek(cursor - 2), 1);
    return object;
  }
  MINITC_HOT void push(unsigned cls, void* ptr) {
    *cursor_[cls] = ptr;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    ++cursor_[cls];
  }

  // The owner begins to change more than a stack's top, and ends. lease() is false, and nothing is
  // changed, while another thread is at work on the cache.
  bool lease();
  // As lease(), but false if another thread has parked or robbed the cache, which stays as it is:
  // for who may have interrupted the owner in pop() or push(), and changes nothing.
  bool lease_if_free() {
    State free = State::kFree;
    return state_.compare_exchange_strong(free, State::kLeased, std::memory_order_acquire);
  }
  void end_lease() { state_.store(State::kFree, std::memory_order_release); }
  // As lease(), for good. If false, the thread that is at work on the cache finds it abandoned.
  bool lease_to_end();

  // The three below by other threads, one at a time, while the cache can't be destroyed. Parks a
  // cache if it is neither parked nor leased. False if its owner has abandoned it meanwhile: it is
  // the caller's for good then, as after lease_to_end().
  bool park();
  // Whether it has been parked for kIdleMs, and is the caller's now, who has to call rob().
  bool take_if_idle();
  // Spills all but the newest object of each class. False as for park().
  bool rob();

  // An object of a class that is_empty(), or null if the OS refuses. If `is_zero` is given it is
  // the only one that comes from the central cache, and becomes true if it is known to be all zero.
  MINITC_COLD void* refill(unsigned cls, bool* is_zero = nullptr);
  // Takes `ptr` of a class that is_full(); `site`, for the blame: of the call of free.
  MINITC_COLD void spill(unsigned cls, void* ptr, std::uintptr_t site);
  // Gives all objects and all capacity back. The cache is then as new.
  void flush();

  // Whether it is time to see what is to be done: at one in kTickPeriod refills and spills.
  bool is_tick_due() const { return slow_calls_ % kTickPeriod == 0; }

  // Whether it is to move to another shard: it calls often, and others do at the same caches.
  bool is_crowded() const { return is_crowded_ && share_->shards->moves() == moves_; }
  const CentralCache* shard() const { return shard_; }
  // From now on it is refilled by the shard with these caches, for good.
  void move_to(CentralCache* shard) {
    shard_ = shard;
    has_moved_ = true;
    is_crowded_ = false;
  }

  // May be called by any thread; approximate while the owner is at work.
  std::size_t cached_objects(unsigned cls) const;
  // What it has of the budget. May be called by any thread.
  std::size_t drawn_bytes() const {
    return static_cast<std::size_t>(drawn_bytes_.load(std::memory_order_relaxed));
  }
  // The child of a fork has this cache alone: false if a thread that it has not was at work on it.
  bool survives_fork() const { return state_.load(std::memory_order_relaxed) != State::kTaken; }
  // While the owner is not at work. The first invariant that does not hold, or null.
  const char* violation() const;
  void check() const { die_if(violation()); }

  // The list of all caches, guarded by the heap's threads lock.
  ThreadCache* prev = nullptr;
  ThreadCache* next = nullptr;
  bool lone = false;  // counted in the heap's lone_caches_

 private:
  enum class State : std::uint32_t {
    kFree,       // only the fast path is at work, if any
    kLeased,     // the owner is in its slow path, or at its end
    kTaken,      // another thread is at work
    kParked,     // the owner's next call finds all stacks empty and full
    kRobbed,     // likewise, and what was in them is gone
    kAbandoned,  // taken, and the owner is gone
  };

  std::size_t capacity(unsigned cls) const {  // 0 or a power of two
    return (std::size_t{1} << width_[cls]) >> 1;
  }
  bool is_parked() const {
    const State state = state_.load(std::memory_order_acquire);
    return state != State::kFree && state != State::kLeased;
  }
  bool draw(std::ptrdiff_t bytes);
  bool has_more_than_its_share() const;
  bool put_back(State state);
  void unpark();
  void start_anew();
  void drop_arrays();
  bool set_capacity(unsigned cls, std::size_t objects);
  bool set_array(unsigned cls, std::size_t objects);
  bool turn(unsigned cls, bool to_frees);
  std::uint16_t note_run(unsigned cls);
  bool grow(unsigned cls, bool turned, std::uint16_t rested_ms);
  void shrink(unsigned cls, std::uint16_t rested_ms);
  void spill_array(unsigned cls, void** objects, std::size_t count);
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
  std::uint8_t width_[kNumClasses] = {};                // bit width of the capacity
  std::uint16_t ran_ms_[kNumClasses] = {};              // the clock when it last ran full or empty
  std::uint64_t in_use_[(kNumClasses + 63) / 64] = {};  // bit cls: the class has an array
  std::uint64_t ran_full_[(kNumClasses + 63) / 64] = {};  // bit cls: full the last time, not empty
  std::uint32_t slow_calls_ = 0;                          // since the last look at slack
  std::uint32_t parked_ms_ = 0;
  std::atomic<State> state_{State::kFree};
  std::atomic<std::ptrdiff_t> drawn_bytes_{0};
  CacheShare* share_ = nullptr;
  CentralCache* shard_ = nullptr;   // its caches, by class
  MetadataArena::Stock spare_;      // arrays that others have replaced
  std::uint32_t scavenged_ms_ = 0;  // at the last look at slack
  unsigned moves_ = 0;              // by then
  bool is_crowded_ = false;
  bool has_moved_ = false;
};

}  // namespace minitc
