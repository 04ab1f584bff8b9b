#include "core/fork.h"

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "core/stats.h"
#include "test/unit/support.h"

namespace minitc {
namespace {

using test::ending_of;
using test::FakeOs;
using test::TestHeap;

// A bit of everything. It must not use the other allocator: a child of many threads calls it.
bool heap_works(Heap& heap) {
  void* objects[60];
  std::size_t sizes[60];
  for (std::size_t i = 0; i < 60; ++i) {
    sizes[i] = i < 50 ? 1 + i * i * 20 : kMaxSmall + i * kPageBytes;
    objects[i] = i % 7 == 0 ? heap.allocate_zeroed(sizes[i]) : heap.allocate(sizes[i]);
    if (objects[i] == nullptr) return false;
    memset(objects[i], static_cast<int>(i), sizes[i]);
  }
  for (std::size_t i = 0; i < 60; i += 3) {
    objects[i] = heap.resize(objects[i], sizes[i] * 2);
    if (objects[i] == nullptr) return false;
  }
  for (std::size_t i = 0; i < 60; ++i) {
    if (!test::all_bytes_are(objects[i], sizes[i], static_cast<unsigned char>(i))) return false;
    heap.deallocate(objects[i]);
  }
  return true;
}

// What the child of a fork does: exit status 0 if all is well.
[[noreturn]] void use_in_child(Heap& heap, std::size_t threads) {
  static Snapshot snapshot;
  ForkHold::child(heap);
  heap.check();
  heap.check_caches();
  Snapshot::take(heap, snapshot);
  if (snapshot.threads != threads) _exit(2);
  if (!heap_works(heap)) _exit(3);
  heap.check();
  heap.check_caches();
  heap.trim();
  heap.check();
  _exit(0);
}

TEST_CASE("fork: both sides go on, and the child keeps the objects and the cache", "[I10]") {
  FakeOs fake;
  TestHeap heap(fake.os());
  char* const object = static_cast<char*>(heap->allocate(100));
  memset(object, 5, 100);
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] {
          if (!test::all_bytes_are(object, 100, 5)) _exit(1);
          heap->deallocate(object);
          use_in_child(*heap, 1);
        }) == "exit 0: ");
  ForkHold::parent(*heap);
  CHECK(heap_works(*heap));
  heap->deallocate(object);
  heap->check();
  heap->check_caches();
}

TEST_CASE("fork: between the handlers the forking thread may allocate", "[I1]") {
  FakeOs fake;
  TestHeap heap(fake.os());
  ForkHold::prepare(*heap);
  CHECK(heap_works(*heap));
  heap->trim();
  Snapshot s;
  Snapshot::take(*heap, s);
  CHECK(ending_of([&] {
          if (!heap_works(*heap)) _exit(1);
          use_in_child(*heap, 1);
        }) == "exit 0: ");
  CHECK(heap_works(*heap));
  ForkHold::parent(*heap);
  heap->check();
  heap->check_caches();
  CHECK_FALSE(inside_critical_section());
}

TEST_CASE("fork: a thread without a cache, and one past its cache, may fork", "[I10]") {
  const bool past = GENERATE(false, true);
  FakeOs fake;
  TestHeap heap(fake.os());
  if (past) {
    CHECK(heap_works(*heap));
    heap->retire_cache();
  }
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] { use_in_child(*heap, 0); }) == "exit 0: ");
  ForkHold::parent(*heap);
  CHECK(heap_works(*heap));
}

// Lets another thread prepare, then run `use` while the heap is held for fork; it must have to
// wait.
template <typename Prepare, typename Use>
void check_that_it_waits(Heap& heap, Prepare prepare, Use use) {
  std::atomic<int> stage{0};
  std::thread other([&] {
    prepare();
    stage = 1;
    while (stage == 1) std::this_thread::yield();
    use();
    stage = 3;
  });
  while (stage == 0) std::this_thread::yield();
  ForkHold::prepare(heap);
  stage = 2;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(stage == 2);
  ForkHold::parent(heap);
  other.join();
  CHECK(stage == 3);
}

TEST_CASE("fork: each lock is held until the parent's handler has run") {
  FakeOs fake;
  TestHeap heap(fake.os());
  void* objects[2] = {};
  const auto nothing = [] {};
  SECTION("that of the list of threads") {
    check_that_it_waits(*heap, nothing, [&] {
      Snapshot s;
      Snapshot::take(*heap, s);
    });
  }
  SECTION("that of a class") {
    check_that_it_waits(
        *heap, [&] { objects[0] = heap->allocate(48); }, [&] { heap->retire_cache(); });
  }
  SECTION("that of the page heap") {
    check_that_it_waits(*heap, nothing, [&] { objects[0] = heap->allocate(kMaxSmall + 1); });
  }
  SECTION("that of the metadata") {
    // Another thread's stack is full but for the object that it has; one more than that, and it
    // needs a longer array.
    for (std::size_t i = 0; i < 2; ++i) objects[i] = heap->allocate(48);
    check_that_it_waits(
        *heap,
        [&] {
          void* const own = heap->allocate(48);
          heap->deallocate(objects[0]);
          objects[0] = own;
        },
        [&] { heap->deallocate(objects[1]); });
    objects[1] = nullptr;
  }
  for (void* const object : objects) heap->deallocate(object);
  heap->check();
  heap->check_caches();
}

TEST_CASE("fork: in the child the other threads' caches are dropped, and their budget is free",
          "[I10]") {
  FakeOs fake;
  Options options;
  options.thread_cache_total = 4 * 1024 * 1024;
  TestHeap heap(fake.os(), options);
  heap->allocate(48);
  std::atomic<std::size_t> ready{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      void* objects[200];
      for (void*& object : objects) object = heap->allocate(1000);
      for (void* const object : objects) heap->deallocate(object);
      ++ready;
      while (!stop) std::this_thread::yield();
    });
  }
  while (ready != 3) std::this_thread::yield();
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] { use_in_child(*heap, 1); }) == "exit 0: ");
  ForkHold::parent(*heap);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  heap->check_caches();
}

std::atomic<bool> hook_entered = false;
std::atomic<bool> hook_may_leave = false;

// Another thread trims the heap, and stays on its way to the OS until it may leave.
class SlowTrim {
 public:
  SlowTrim(FakeOs& fake, Heap& heap) : fake_(fake) {
    hook_entered = hook_may_leave = false;
    fake.at_decommit([] {
      hook_entered = true;
      while (!hook_may_leave) std::this_thread::yield();
    });
    thread_ = std::thread([&heap] { heap.trim(); });
    while (!hook_entered) std::this_thread::yield();
  }
  void finish() {
    hook_may_leave = true;
    thread_.join();
    fake_.at_decommit(nullptr);
  }

 private:
  FakeOs& fake_;
  std::thread thread_;
};

TEST_CASE("fork: pages that another thread was returning are not lost to the child", "[I4]") {
  FakeOs fake;
  TestHeap heap(fake.os());
  heap->allocate(48);
  heap->deallocate(heap->allocate(10 * kMaxSmall));
  SlowTrim other(fake, *heap);
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] {
          static Snapshot s;
          hook_may_leave = true;
          ForkHold::child(*heap);
          heap->trim();
          Snapshot::take(*heap, s);
          if (s.page_heap_free != 0) _exit(1);
          fake.fail(test::OsCall::kReserve, 1, test::kAlways);
          _exit(heap->allocate(10 * kMaxSmall) != nullptr ? 0 : 2);
        }) == "exit 0: ");
  ForkHold::parent(*heap);
  other.finish();
  heap->check();
}

TEST_CASE("fork: objects whose pages another thread was returning are not lost to the child",
          "[I7][I8]") {
  const bool all_are_free = GENERATE(false, true);
  FakeOs fake;
  TestHeap heap(fake.os());
  constexpr std::size_t kBytes = 2048;
  constexpr std::size_t kObjects = kSizeClasses[class_of(kBytes)].objects;
  void* objects[kObjects];
  for (void*& object : objects) object = heap->allocate(kBytes);
  for (std::size_t i = 1; i < kObjects; ++i) heap->deallocate(objects[i]);
  heap->trim();  // all that is not in the span
  heap->deallocate(heap->allocate(kBytes));
  heap->flush_cache();
  SlowTrim other(fake, *heap);
  if (all_are_free) {
    heap->deallocate(objects[0]);
    heap->flush_cache();
  }
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] {
          static Snapshot s;
          hook_may_leave = true;
          ForkHold::child(*heap);
          heap->check();
          for (void*& object : objects) object = heap->allocate(kBytes);
          for (void* const object : objects) heap->deallocate(object);
          heap->trim();
          heap->check();
          Snapshot::take(*heap, s);
          _exit(s.classes[class_of(kBytes)].spans == (all_are_free ? 0 : 1) ? 0 : 1);
        }) == "exit 0: ");
  ForkHold::parent(*heap);
  other.finish();
  heap->check();
}

Heap* forking = nullptr;
pid_t forked = -1;

// What the handler allocates in the child.
void* kept_by_child[100];

// As a signal handler that forks in the middle of a slow path: both sides come back to it.
void fork_once() {
  if (forked != -1) return;
  ForkHold::prepare(*forking);
  forked = fork();
  if (forked == 0) {
    ForkHold::child(*forking);
    for (void*& object : kept_by_child) object = memset(forking->allocate(2048), 9, 2048);
  } else {
    ForkHold::parent(*forking);
  }
}

TEST_CASE("fork: while this thread returns pages between objects, both sides finish it",
          "[I7][I8]") {
  FakeOs fake;
  TestHeap heap(fake.os());
  CHECK(ending_of([&] {
          static Snapshot s;
          forking = &*heap;
          forked = -1;
          static void* objects[800];
          for (void*& object : objects) object = heap->allocate(2048);
          heap->trim();
          for (std::size_t i = 0; i < 800; ++i) {
            if (i % 8 != 0) heap->deallocate(objects[i]);
          }
          heap->flush_cache();
          fake.at_decommit(fork_once);
          heap->trim();
          fake.at_decommit(nullptr);
          if (forked == -1) _exit(1);
          heap->check();
          for (void* const object : kept_by_child) {
            if (object == nullptr) continue;
            if (!test::all_bytes_are(object, 2048, 9)) _exit(5);
            heap->deallocate(object);
          }
          for (std::size_t i = 0; i < 800; i += 8) heap->deallocate(objects[i]);
          heap->trim();
          heap->check();
          Snapshot::take(*heap, s);
          if (s.classes[class_of(2048)].spans != 0 || s.live != 0) _exit(2);
          if (!heap_works(*heap)) _exit(3);
          int status = 0;
          if (forked != 0) waitpid(forked, &status, 0);
          _exit(status == 0 ? 0 : 4);
        }) == "exit 0: ");
}

TEST_CASE("fork: in the middle of a slow path, both sides finish it", "[I4][I10]") {
  const bool trims = GENERATE(false, true);
  CAPTURE(trims);
  FakeOs fake;
  Options options;
  options.free_bound = kPageBytes;
  TestHeap heap(fake.os(), options);
  CHECK(ending_of([&] {
          static Snapshot s;
          forking = &*heap;
          forked = -1;
          static void* objects[2000];
          for (void*& object : objects) object = heap->allocate(1000);
          fake.at_decommit(fork_once);
          for (void* const object : objects) heap->deallocate(object);
          if (trims) heap->trim();
          fake.at_decommit(nullptr);
          if (forked == -1) _exit(1);
          for (void* const object : kept_by_child) {
            if (object != nullptr) heap->deallocate(object);
          }
          heap->check();
          heap->check_caches();
          Snapshot::take(*heap, s);
          if (s.threads != 1 || s.live != 0) _exit(2);
          if (!heap_works(*heap)) _exit(3);
          heap->trim();
          Snapshot::take(*heap, s);
          if (s.page_heap_free != 0) _exit(4);
          int status = 0;
          if (forked != 0) waitpid(forked, &status, 0);
          _exit(status == 0 ? 0 : 5);
        }) == "exit 0: ");
}

TEST_CASE("fork: a handler whose request is refused does not wait for another thread's return") {
  static std::atomic<bool> returns;
  static std::atomic<bool> goes_on;
  returns = goes_on = false;
  FakeOs fake;
  TestHeap heap(fake.os());
  void* const block = heap->allocate(2 * kMinFreeBound);
  fake.at_decommit([] {
    returns = true;
    while (!goes_on) std::this_thread::yield();
  });
  std::thread other([&] { heap->deallocate(block); });
  while (!returns) std::this_thread::yield();
  ForkHold::prepare(*heap);
  fake.fail(test::OsCall::kReserve, 1, test::kAlways);
  goes_on = true;
  CHECK(heap->allocate(kMinFreeBound) == nullptr);
  ForkHold::parent(*heap);
  other.join();
  fake.at_decommit(nullptr);
  CHECK(heap_works(*heap));
}

TEST_CASE("fork: a child whose own cache another thread was at work on goes on without it",
          "[I10]") {
  FakeOs fake;
  TestHeap heap(fake.os());
  for (int i = 0; i < 100; ++i) heap->deallocate(heap->allocate(48));
  ThreadCache* const own = t_cache;
  REQUIRE(own->park());
  fake.pass_ms(kIdleMs);
  REQUIRE(own->take_if_idle());
  ForkHold::prepare(*heap);
  const std::string ending = ending_of([&] {
    ForkHold::child(*heap);
    if (!heap_works(*heap)) _exit(1);
    heap->check();
    heap->check_caches();
    _exit(t_cache != own ? 0 : 2);
  });
  ForkHold::parent(*heap);
  CHECK(ending == "exit 0: ");
  CHECK(heap_works(*heap));  // without a cache meanwhile
  REQUIRE(own->rob());
  CHECK(heap_works(*heap));
  heap->check_caches();
}

TEST_CASE("fork: children of a process whose threads are hard at work find all in order",
          "[I7][I10]") {
  FakeOs fake;
  Options options;
  options.free_bound = 128 * 1024;
  options.thread_cache_total = 256 * 1024;
  TestHeap heap(fake.os(), options);
  heap->allocate(48);
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> rounds{0};
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < 7; ++thread) {
    threads.emplace_back([&, thread] {
      test::Random random(thread);
      void* objects[40] = {};
      while (!stop) {
        void*& object = objects[random.below(40)];
        heap->deallocate(object);
        const std::size_t bytes = random.below(20) == 0 ? kMaxSmall * 2 : random.below(3000);
        object = heap->allocate(bytes);
        if (random.below(50) == 0) heap->trim();
        rounds.fetch_add(1, std::memory_order_relaxed);
      }
      for (void* const object : objects) heap->deallocate(object);
    });
  }
  for (std::size_t i = 0; i < 5 * test::kRounds; ++i) {
    const std::size_t before = rounds;
    while (rounds < before + 100) std::this_thread::yield();
    ForkHold::prepare(*heap);
    // All threads but this one may have been caught anywhere. Those without a cache have none.
    const std::string ending = ending_of([&] { use_in_child(*heap, 1); });
    ForkHold::parent(*heap);
    CHECK(ending == "exit 0: ");
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  heap->check();
  heap->check_caches();
}

}  // namespace
}  // namespace minitc
