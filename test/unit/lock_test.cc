#include "core/lock.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <future>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::check_fails;
using test::ending_of;
using test::in_threads;

using Threads = RankedLock<LockRank::kThreads>;
using Central = RankedLock<LockRank::kCentral>;
using PageHeapLock = RankedLock<LockRank::kPageHeap>;
using Metadata = RankedLock<LockRank::kMetadata>;

TEST_CASE("lock: one thread at a time is inside") {
  Central lock;
  std::size_t count = 0;  // not atomic: ThreadSanitizer sees whether the lock orders it
  std::atomic<int> inside{0};
  std::atomic<int> collisions{0};
  const std::size_t rounds = 2000 * test::kRounds;
  in_threads(8, [&](std::size_t) {
    for (std::size_t i = 0; i < rounds; ++i) {
      const LockGuard guard(lock);
      if (inside.fetch_add(1, std::memory_order_relaxed) != 0) ++collisions;
      ++count;
      inside.fetch_sub(1, std::memory_order_relaxed);
    }
  });
  CHECK(count == 8 * rounds);
  CHECK(collisions == 0);
}

TEST_CASE("lock: those who had to sleep are all woken") {
  Central lock;
  std::size_t count = 0;
  for (int round = 0; round < 3; ++round) {
    std::promise<void> held;
    std::thread holder([&] {
      const LockGuard guard(lock);
      held.set_value();
      // Long enough that the others stop spinning.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ++count;
    });
    held.get_future().wait();
    in_threads(8, [&](std::size_t) {
      const LockGuard guard(lock);
      ++count;
    });
    holder.join();
  }
  CHECK(count == 3 * 9);
}

TEST_CASE("lock: ranks may be taken in rising order", "[I1]") {
  Threads threads;
  Central central;
  PageHeapLock pages;
  Metadata metadata;
  CHECK(ending_of([&] {
          const LockGuard a(threads);
          const LockGuard b(central);
          const LockGuard c(pages);
          const LockGuard d(metadata);
        }) == "exit 0: ");
  {
    const LockGuard b(central);
    const LockGuard d(metadata);
  }
  const LockGuard again(central);  // the guards above have left nothing behind
  CHECK(inside_critical_section());
}

TEST_CASE("lock: taking a lower or an equal rank is caught", "[I1]") {
  Central central;
  Central other;
  PageHeapLock pages;
  Metadata metadata;
  CHECK(check_fails([&] {
    const LockGuard a(pages);
    const LockGuard b(central);
  }));
  CHECK(check_fails([&] {
    const LockGuard a(metadata);
    const LockGuard b(pages);
  }));
  CHECK(check_fails([&] {
    const LockGuard a(central);
    const LockGuard b(other);
  }));
  CHECK(check_fails([&] {
    const LockGuard a(central);
    const LockGuard b(central);
  }));
}

// Guards something that is looked through `walks` times, and is whole up to `whole` times.
struct Walked {
  const char* violation_locked(std::size_t& seen) const {
    ++walks;
    MINITC_EXPECT(walks <= whole);
    seen += things;
    return nullptr;
  }
  mutable std::size_t walks = 0;
  std::size_t things = 0;
  std::size_t whole = 1000;
};

TEST_CASE("lock: a debug build walks through what it guards at every release of a few things") {
  Central lock;
  Walked owner{.things = 7};
  for (std::size_t i = 1; i <= 10; ++i) {
    { const LockGuard guard(lock, owner); }
    CHECK(owner.walks == i);
  }
}

TEST_CASE("lock: and at every n / 8th release of n things") {
  Central lock;
  Walked owner{.things = 800};
  for (int i = 0; i < 303; ++i) const LockGuard guard(lock, owner);
  CHECK(owner.walks == 3);  // the 1st, the 102nd and the 203rd
}

TEST_CASE("lock: what is broken is noticed at the release") {
  Central lock;
  CHECK(check_fails([&] {
    const Walked owner{.whole = 2};
    for (int i = 0; i < 3; ++i) const LockGuard guard(lock, owner);
  }));
}

TEST_CASE("lock: the thread knows whether it is in a critical section") {
  Central central;
  PageHeapLock pages;
  CHECK_FALSE(inside_critical_section());
  {
    const LockGuard a(central);
    CHECK(inside_critical_section());
    {
      const LockGuard b(pages);
      CHECK(inside_critical_section());
    }
    CHECK(inside_critical_section());
    bool other_thread = true;
    in_threads(1, [&](std::size_t) { other_thread = inside_critical_section(); });
    CHECK_FALSE(other_thread);
  }
  CHECK_FALSE(inside_critical_section());
}

// Starts a thread that takes the lock once.
template <typename Lock>
std::thread take_once(Lock& lock, std::atomic<bool>& taken) {
  return std::thread([&] {
    const LockGuard guard(lock);
    taken = true;
  });
}

TEST_CASE("lock: held for fork, it lets its own thread through again and again, and no other") {
  Central lock;
  lock.lock_for_fork();
  CHECK_FALSE(inside_critical_section());  // fork handlers of others may allocate
  for (int i = 0; i < 3; ++i) {
    const LockGuard guard(lock);
    CHECK(inside_critical_section());
  }
  std::atomic<bool> taken{false};
  std::thread other = take_once(lock, taken);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_FALSE(taken);
  { const LockGuard guard(lock); }
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK_FALSE(taken);
  lock.unlock_after_fork();
  other.join();
  CHECK(taken);
}

TEST_CASE("lock: a fork inside the critical section leaves it held") {
  Central lock;
  lock.lock();
  lock.lock_for_fork();  // as a signal handler that forks would
  lock.unlock_after_fork();
  std::atomic<bool> taken{false};
  std::thread other = take_once(lock, taken);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_FALSE(taken);
  lock.unlock();
  other.join();
  CHECK(taken);
}

TEST_CASE("lock: the child of a fork has the lock, though others wait for it in the parent") {
  Central lock;
  lock.lock_for_fork();
  std::atomic<bool> taken{false};
  std::thread other = take_once(lock, taken);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // it sleeps by now
  CHECK(ending_of([&] {
          lock.unlock_after_fork();
          for (int i = 0; i < 3; ++i) {
            const LockGuard guard(lock);
          }
        }) == "exit 0: ");
  lock.unlock_after_fork();
  other.join();
  CHECK(taken);
}

TEST_CASE("lock: taking it for a fork waits for the holder") {
  Central lock;
  int value = 0;
  std::promise<void> held;
  std::thread holder([&] {
    const LockGuard guard(lock);
    held.set_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    value = 1;
  });
  held.get_future().wait();
  lock.lock_for_fork();
  CHECK(value == 1);
  lock.unlock_after_fork();
  holder.join();
}

}  // namespace
}  // namespace minitc
