#include "core/inspection.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/stats.h"
#include "test/unit/support.h"

namespace minitc {
namespace {

using test::FakeOs;
using test::TestHeap;

struct Seen {
  SpanView span;
  std::size_t free_objects;
};

std::vector<Seen> spans_of(Heap& heap) {
  std::vector<Seen> all;
  const int result = Inspection::for_each_span(
      heap,
      [](const SpanView& span, std::size_t free_objects, void* context) {
        static_cast<std::vector<Seen>*>(context)->push_back({span, free_objects});
        return 0;
      },
      &all);
  CHECK(result == 0);
  return all;
}

Options without_caches() {
  Options options;
  options.check_free = 1;
  return options;
}

TEST_CASE("inspection: an unused heap has no spans and is whole") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  CHECK(spans_of(*heap).empty());
  CHECK(Inspection::violation(*heap) == nullptr);
}

TEST_CASE("inspection: every page is in one span, by state and class as the figures say") {
  const FakeOs fake;
  const TestHeap heap(fake.os(), without_caches());
  std::vector<void*> objects;
  for (std::size_t i = 0; i < 3000; ++i) objects.push_back(heap->allocate(8 + i * 7 % 20000));
  for (std::size_t i = 0; i < 20; ++i) objects.push_back(heap->allocate(300000 + i * 50000));
  for (std::size_t i = 0; i < objects.size(); i += 3) heap->deallocate(objects[i]);
  auto s = std::make_unique<Snapshot>();
  Snapshot::take(*heap, *s);
  std::size_t bytes = 0;
  std::size_t large = 0;
  std::size_t by_class[kNumClasses] = {};
  std::size_t free_in_class[kNumClasses] = {};
  std::size_t free = 0;
  std::size_t returned = 0;
  PageId last{0};
  for (const Seen& seen : spans_of(*heap)) {
    CHECK(seen.span.start >= last);
    last = seen.span.start + seen.span.length;
    bytes += seen.span.length.bytes();
    const SpanState state = seen.span.state;
    CHECK((state == SpanState::kSmall) == (seen.span.cls != 0));
    if (state == SpanState::kLarge) large += seen.span.length.bytes();
    if (state == SpanState::kFree || state == SpanState::kKept) free += seen.span.length.bytes();
    if (state == SpanState::kReturned) returned += seen.span.length.bytes();
    ++by_class[seen.span.cls];
    free_in_class[seen.span.cls] += seen.free_objects;
  }
  CHECK(bytes == s->mapped);
  CHECK(large == s->large_bytes);
  CHECK(free == s->page_heap_free);
  CHECK(returned == s->returned);
  heap->trim();  // what is in the stores is in the spans
  Snapshot::take(*heap, *s);
  std::fill_n(by_class, kNumClasses, 0);
  std::fill_n(free_in_class, kNumClasses, 0);
  for (const Seen& seen : spans_of(*heap)) {
    ++by_class[seen.span.cls];
    free_in_class[seen.span.cls] += seen.free_objects;
  }
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    CHECK(by_class[cls] == s->classes[cls].spans);
    CHECK(free_in_class[cls] == s->classes[cls].central);
  }
  CHECK(Inspection::violation(*heap) == nullptr);
}

TEST_CASE("inspection: spans are shown until a call says no more") {
  const FakeOs fake;
  const TestHeap heap(fake.os(), without_caches());
  for (int i = 0; i < 100; ++i) heap->allocate(1 << 20);
  int calls = 0;
  const int result = Inspection::for_each_span(
      *heap,
      [](const SpanView&, std::size_t, void* context) {
        return ++*static_cast<int*>(context) == 70 ? 7 : 0;
      },
      &calls);
  CHECK(result == 7);
  CHECK(calls == 70);
}

TEST_CASE("inspection: who is shown a span may allocate and free") {
  const FakeOs fake;
  const TestHeap heap(fake.os(), without_caches());
  struct Work {
    const TestHeap& heap;
    std::vector<void*> objects;
  } work{heap, {}};
  for (int i = 0; i < 100; ++i) work.objects.push_back(heap->allocate(1 << 20));
  Inspection::for_each_span(
      *heap,
      [](const SpanView&, std::size_t, void* context) {
        Work& w = *static_cast<Work*>(context);
        if (w.objects.empty()) return 0;
        w.heap->deallocate(w.objects.back());
        w.objects.pop_back();
        w.heap->allocate(5000);
        return 0;
      },
      &work);
  CHECK(Inspection::violation(*heap) == nullptr);
}

TEST_CASE("inspection: names what does not hold, and the heap goes on") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  void* const object = heap->allocate(100);
  CHECK(Inspection::violation(*heap) == nullptr);
  ThreadCache elsewhere;
  t_cache->prev = &elsewhere;
  const char* const broken = Inspection::violation(*heap);
  t_cache->prev = nullptr;
  REQUIRE(broken != nullptr);
  CHECK(std::string(broken).rfind("core/heap.cc:", 0) == 0);
  CHECK(std::string(broken).find(": cache->prev == last") != std::string::npos);
  heap->deallocate(object);
  CHECK(Inspection::violation(*heap) == nullptr);
}

TEST_CASE("inspection: holds nobody up and finds nothing while threads are at work") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::vector<void*> mine;
      for (std::size_t i = t; !stop; i += 7) {
        mine.push_back(heap->allocate(i * 37 % 9000 + (i % 50 == 0 ? 300000 : 0)));
        if (mine.size() == 200) {
          for (void* const object : mine) heap->deallocate(object);
          mine.clear();
        }
      }
      for (void* const object : mine) heap->deallocate(object);
      heap->retire_cache();
    });
  }
  std::size_t spans = 0;
  for (int i = 0; i < 50 || spans == 0; ++i) {
    CHECK(Inspection::violation(*heap) == nullptr);
    spans += spans_of(*heap).size();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(spans > 0);
}

}  // namespace
}  // namespace minitc
