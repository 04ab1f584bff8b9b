// A mutex with its rank in its type. Threads take locks in rising rank only; docs/locks.md has a
// row for each.
//
// Waiters spin briefly, then sleep in the kernel: a holder that lost its processor must not be
// waited for by burning another. A lock knows its owner, for two reasons: the thread that forks
// holds all locks and may still allocate (another library's fork handler), and a signal handler
// that interrupted its own thread inside the allocator must not wait for that thread.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/os.h"

namespace MINITC_HIDDEN minitc {

// Rising order of acquisition. Never two of one rank at a time, except that fork takes them all.
enum class LockRank : std::uint8_t { kThreads, kCentral, kPageHeap, kMetadata };

// Bit r is set while this thread is inside a critical section of rank r, or about to enter or leave
// it.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local std::uint32_t t_ranks_held = 0;

// A bit of no rank, for who wants to be treated as if it were inside one.
inline constexpr std::uint32_t kNoRank = 1U << 31;

// True in a signal handler that interrupted this thread inside a critical section: what the locks
// guard may be half changed, and nothing that locks may be called.
inline bool inside_critical_section() { return t_ranks_held != 0; }

// This thread as the holder of locks: an even number, not 0, that no other living thread has, also
// across a fork. It is an address in its thread-local storage.
inline std::uintptr_t this_holder() { return reinterpret_cast<std::uintptr_t>(&t_ranks_held); }

// The word holds its holder and, as its lowest bit, whether others wait: one atomic operation takes
// the lock and says who has it, also to a signal handler that comes right after. The kernel looks
// at the lower half alone: who sleeps on, as that of another holder is the same, is woken by that.
template <LockRank R>
class MINITC_CAPABILITY("mutex") RankedLock {
 public:
  void lock() MINITC_ACQUIRE() {
    MINITC_ASSERT((t_ranks_held >> kBit) == 0);  // I1
    t_ranks_held |= 1U << kBit;                  // first: a signal may come after any instruction
    if (try_take(kNobodyWaits)) return;
    if (is_mine()) {  // between the fork handlers
      ++depth_;
    } else {
      wait();
    }
  }

  void unlock() MINITC_RELEASE() {
    if (depth_ != 0) {
      --depth_;
    } else {
      give_up();
    }
    t_ranks_held &= ~(1U << kBit);
  }

  // Takes the lock for the time between the fork handlers. If this thread holds it already (fork in
  // a signal handler), nothing is done: parent and child both resume inside the critical section.
  void lock_for_fork() MINITC_NO_THREAD_SAFETY_ANALYSIS {
    if (is_mine()) return;
    if (!try_take(kNobodyWaits)) wait();
    for_fork_ = true;
  }

  void unlock_after_fork() MINITC_NO_THREAD_SAFETY_ANALYSIS {
    if (!for_fork_) return;
    for_fork_ = false;
    give_up();
  }

  // By the holder: whether it is between the fork handlers, so that nobody else will take it soon.
  bool is_held_for_fork() const { return for_fork_; }

  // Debug builds, before each release: dies if owner.violation_locked(), which counts the things
  // that it looks at, finds an invariant of what the lock guards that does not hold. A walk over n
  // things is due again n / kWalkShare releases later, so that walks do not take longer the more
  // there is. True.
  template <typename Owner>
  bool walk_if_due(const Owner& owner) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    if (until_walk_ != 0) {
      --until_walk_;
    } else {
      std::size_t seen = 0;
      die_if(owner.violation_locked(seen));
      until_walk_ = static_cast<std::uint32_t>(seen / kWalkShare);
    }
    return true;
  }

 private:
  static constexpr unsigned kBit = static_cast<unsigned>(R);
  static constexpr int kSpins = 64;
  static constexpr std::size_t kWalkShare = 8;
  static constexpr std::uintptr_t kNobodyWaits = 0;
  static constexpr std::uintptr_t kOthersWait = 1;
  static_assert(std::endian::native == std::endian::little, "a word begins with its lower half");

  bool is_mine() const {
    return (word_.load(std::memory_order_relaxed) & ~kOthersWait) == this_holder();
  }

  bool try_take(std::uintptr_t waiters) {
    std::uintptr_t expected = 0;
    return word_.compare_exchange_strong(expected, this_holder() | waiters,
                                         std::memory_order_acquire, std::memory_order_relaxed);
  }

  MINITC_COLD void wait() {
    for (int i = 0; i < kSpins; ++i) {
      if (word_.load(std::memory_order_relaxed) == 0 && try_take(kNobodyWaits)) return;
      MINITC_SPIN_PAUSE();
    }
    // Who has slept takes the lock as one that others wait for: it can't know that none does.
    while (!try_take(kOthersWait)) {
      std::uintptr_t held = word_.load(std::memory_order_relaxed);
      if (held == 0) continue;
      if ((held & kOthersWait) != 0 ||
          word_.compare_exchange_strong(held, held | kOthersWait, std::memory_order_relaxed)) {
        futex_wait(&word_, static_cast<std::uint32_t>(held | kOthersWait));
      }
    }
  }

  void give_up() {
    if ((word_.exchange(0, std::memory_order_release) & kOthersWait) != 0) futex_wake_one(&word_);
  }

  std::atomic<std::uintptr_t> word_{0};
  std::uint32_t depth_ = 0;       // holder only: lock() calls while held for fork
  bool for_fork_ = false;         // holder only
  std::uint32_t until_walk_ = 0;  // holder only: releases without a walk
};

// For a lock that guards nothing with invariants of its own.
struct Unchecked {
  const char* violation_locked(std::size_t& /*seen*/) const { return nullptr; }
};
inline constexpr Unchecked kUnchecked;

// Holds `lock` for a scope. `owner` has what it guards.
template <LockRank R, typename Owner = Unchecked>
class MINITC_SCOPED_CAPABILITY LockGuard {
 public:
  explicit LockGuard(RankedLock<R>& lock, const Owner& owner = kUnchecked) MINITC_ACQUIRE(lock)
      : lock_(lock), owner_(owner) {
    lock_.lock();
  }
  ~LockGuard() MINITC_RELEASE() {
    MINITC_ASSERT(lock_.walk_if_due(owner_));
    lock_.unlock();
  }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  RankedLock<R>& lock_;
  [[maybe_unused]] const Owner& owner_;  // debug builds
};

// What owner.violation_locked() says, by who does not hold `lock`.
template <LockRank R, typename Owner>
const char* violation_under(RankedLock<R>& lock,
                            const Owner& owner) MINITC_NO_THREAD_SAFETY_ANALYSIS {
  const LockGuard guard(lock);
  std::size_t seen = 0;
  return owner.violation_locked(seen);
}

}  // namespace minitc
