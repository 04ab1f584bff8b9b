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

TEST_CASE("fork: other threads wait until the parent's handler has run") {
  FakeOs fake;
  TestHeap heap(fake.os());
  ForkHold::prepare(*heap);
  std::atomic<bool> done{false};
  std::thread other([&] {
    void* const object = heap->allocate(100);  // a cache, a span: all locks
    done = true;
    heap->deallocate(object);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_FALSE(done);
  ForkHold::parent(*heap);
  other.join();
  CHECK(done);
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
