// A mutex with its rank in its type. Threads take locks in rising rank only; docs/locks.md has a
// row for each.
//
// Waiters spin briefly, then sleep in the kernel: a holder that lost its processor must not be
// waited for by burning another. A lock knows its owner, for two reasons: the thread that forks
// holds all locks and may still allocate (another library's fork handler), and a signal handler
// that interrupted its own thread inside the allocator must not wait for that thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/base.h"
#include "core/os.h"

namespace minitc {

// Rising order of acquisition. Never two of one rank at a time, except that fork takes them all.
enum class LockRank : std::uint8_t { kThreads, kCentral, kPageHeap, kMetadata };

// Bit r is set while this thread is inside a critical section of rank r.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local std::uint32_t t_ranks_held = 0;

// True in a signal handler that interrupted this thread inside a critical section: what the locks
// guard may be half changed, and nothing that locks may be called.
inline bool inside_critical_section() { return t_ranks_held != 0; }

template <LockRank R>
class MINITC_CAPABILITY("mutex") RankedLock {
 public:
  void lock() MINITC_ACQUIRE() {
    MINITC_ASSERT((t_ranks_held >> kBit) == 0);  // I1
    t_ranks_held |= 1U << kBit;                  // first: a signal may come after any instruction
    std::uint32_t expected = kFree;
    if (!word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      if (is_mine()) {  // between the fork handlers
        ++depth_;
        return;
      }
      wait();
    }
    owner_.store(&t_ranks_held, std::memory_order_relaxed);
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
    std::uint32_t expected = kFree;
    if (!word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire)) wait();
    owner_.store(&t_ranks_held, std::memory_order_relaxed);
    for_fork_ = true;
  }

  void unlock_after_fork() MINITC_NO_THREAD_SAFETY_ANALYSIS {
    if (!for_fork_) return;
    for_fork_ = false;
    give_up();
  }

 private:
  static constexpr unsigned kBit = static_cast<unsigned>(R);
  static constexpr int kSpins = 64;
  enum : std::uint32_t { kFree, kHeld, kHeldWithWaiters };

  bool is_mine() const { return owner_.load(std::memory_order_relaxed) == &t_ranks_held; }

  MINITC_COLD void wait() {
    for (int i = 0; i < kSpins; ++i) {
      std::uint32_t expected = kFree;
      if (word_.load(std::memory_order_relaxed) == kFree &&
          word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire)) {
        return;
      }
      MINITC_SPIN_PAUSE();
    }
    while (word_.exchange(kHeldWithWaiters, std::memory_order_acquire) != kFree) {
      futex_wait(word_, kHeldWithWaiters);
    }
  }

  void give_up() {
    owner_.store(nullptr, std::memory_order_relaxed);
    if (word_.exchange(kFree, std::memory_order_release) == kHeldWithWaiters) {
      futex_wake_one(word_);
    }
  }

  std::atomic<std::uint32_t> word_{kFree};
  std::uint32_t depth_ = 0;  // owner only: lock() calls while held for fork
  bool for_fork_ = false;    // owner only
  std::atomic<const void*> owner_{nullptr};
};

template <LockRank R>
class MINITC_SCOPED_CAPABILITY LockGuard {
 public:
  explicit LockGuard(RankedLock<R>& lock) MINITC_ACQUIRE(lock) : lock_(lock) { lock_.lock(); }
  ~LockGuard() MINITC_RELEASE() { lock_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  RankedLock<R>& lock_;
};

}  // namespace minitc
