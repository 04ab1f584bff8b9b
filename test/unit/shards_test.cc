#include "core/shards.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/fork.h"
#include "core/inspection.h"
#include "test/unit/support.h"

namespace minitc {
namespace {

using test::death;
using test::ending_of;
using test::FakeOs;
using test::hex;
using test::TestHeap;
using test::Tiers;

using Objects = std::vector<void*>;

constexpr unsigned kClass48 = class_of(48);
constexpr unsigned kClass1024 = class_of(1024);  // not stored by the batch
constexpr unsigned kClass20000 = class_of(20000);
constexpr unsigned kClassLargest = kNumClasses - 1;

// Two shards, and a class in each.
struct TwoShards {
  explicit TwoShards(unsigned of_class = kClass48)
      : cls(of_class), shards{t.shards->first(), test::add_shard(*t.shards)} {}

  const SizeClass& size() const { return kSizeClasses[cls]; }
  Objects refill(unsigned shard, std::size_t count) {
    Objects out(count);
    out.resize(t.shards->refill(shards[shard], cls, out.data(), count));
    return out;
  }
  // What a shard has in spans of its own, though others want it.
  Objects refill_alone(unsigned shard, std::size_t count) {
    Objects out(count);
    out.resize(shards[shard][cls].refill(t.base, cls, out.data(), count));
    return out;
  }
  void spill(Objects objects) {
    for (std::size_t done = 0; done < objects.size(); done += size().batch) {
      const std::size_t n = std::min<std::size_t>(size().batch, objects.size() - done);
      t.shards->spill(cls, objects.data() + done, n, {Caller::kFree});
    }
  }
  unsigned shard_of(const void* object) const {
    return t.map->span_at(PageId::of(object))->shard();
  }
  // Objects that are in no span and no store.
  std::size_t away(unsigned shard) {
    const CentralStats s = shards[shard][cls].stats();
    return s.objects - s.free - s.stored;
  }
  std::size_t spans(unsigned shard) { return shards[shard][cls].stats().spans; }

  Tiers t;
  unsigned cls;
  CentralCache* shards[2];
};

std::size_t count_of(const std::span<CentralCache>& caches) { return caches.size() / kNumClasses; }

TEST_CASE("shards: threads that move get one each, up to a bound, then share") {
  Tiers t;
  const unsigned most = GENERATE(0U, 1U, 3U, 16U, 17U, 1000U);
  const unsigned bound = std::clamp(most, 1U, kMaxShards);
  CHECK(count_of(t.shards->all()) == 1);
  for (unsigned i = 0; i < 3 * bound; ++i) t.shards->enter();
  // The first shard has all, so that they move one after the other.
  std::map<const CentralCache*, unsigned> threads;
  for (unsigned i = 0; i < 3 * bound; ++i) {
    ++threads[t.shards->move(t.shards->first(), most)];
    CHECK(count_of(t.shards->all()) == std::min(i + 2, bound));
  }
  CHECK(t.shards->moves() == 3 * bound);
  CHECK(threads.size() == bound);
  for (const auto& [shard, count] : threads) CHECK(count == 3);
  t.check();
}

TEST_CASE("shards: a shard whose threads have ended is the next that gets one") {
  Tiers t;
  for (unsigned i = 0; i < 3; ++i) t.shards->enter();
  CentralCache* const second = t.shards->move(t.shards->first(), 8);
  if (GENERATE(false, true)) {
    t.shards->leave(second);
  } else {  // in the child of a fork
    t.shards->forget_threads(t.shards->first());
    t.shards->enter();
  }
  CHECK(t.shards->move(t.shards->first(), 8) == second);
  CHECK(count_of(t.shards->all()) == 2);
}

TEST_CASE("shards: an object goes home to the shard it came from, whoever brings it", "[I7]") {
  const unsigned cls = GENERATE(kClass48, kClass1024, kClass20000, kClassLargest);
  TwoShards s(cls);
  CAPTURE(cls);
  const std::size_t count = 4 * std::size_t{s.size().objects};
  Objects objects[2] = {s.refill(0, count), s.refill(1, count)};
  Objects mixed;
  for (std::size_t i = 0; i < count; ++i) {
    for (unsigned shard = 0; shard < 2; ++shard) {
      REQUIRE(s.shard_of(objects[shard][i]) == (s.size().bytes <= kMaxShardedBytes ? shard : 0));
      mixed.push_back(objects[shard][i]);
    }
  }
  std::size_t left = 2 * count;
  const std::string how = GENERATE(as<std::string>{}, "in turns", "at random", "one by one");
  CAPTURE(how);
  if (how == "at random") {
    test::Random random(1);
    for (std::size_t i = mixed.size(); i > 1; --i) std::swap(mixed[i - 1], mixed[random.below(i)]);
  }
  if (how == "one by one") {
    for (; left > count; --left) s.spill({mixed[left - 1]});
    mixed.resize(left);
  }
  s.spill(mixed);
  for (unsigned shard = 0; shard < 2; ++shard) CHECK(s.away(shard) == 0);
  s.t.check();
  s.t.trim();
  CHECK(s.t.heap.stats().in_use == PageCount{});
  s.t.check();
}

TEST_CASE("shards: an object of a class that its shard never refilled a thread with goes home") {
  TwoShards s;
  const Objects objects = s.refill(1, 10);
  CHECK(s.spans(0) == 0);
  s.spill(objects);
  CHECK(s.away(1) == 0);
  // Of a class that neither had before there was more than one.
  s.cls = kClass1024;
  s.spill(s.refill(0, 4));
  s.spill(s.refill(1, 4));
  s.t.check();
}

TEST_CASE("shards: a bad pointer among objects of both is named", "[I7]") {
  const unsigned cls = GENERATE(kClass48, kClass1024);
  TwoShards s(cls);
  const Objects first = s.refill(0, 4);
  const Objects second = s.refill(1, 4);
  const unsigned shard = GENERATE(0U, 1U);
  void* const bad = (shard == 0 ? first : second)[1];
  Objects batch = {first[0], second[0], bad, first[2], second[2]};
  if (GENERATE(false, true)) std::reverse(batch.begin(), batch.end());
  SECTION("freed twice") {
    s.spill({bad});
    CHECK(ending_of([&] { s.spill(batch); }) ==
          death("free(" + hex(bad) + "): double free: the object is already free"));
  }
  SECTION("an interior one") {
    for (void*& object : batch) {
      if (object == bad) object = static_cast<char*>(bad) + 8;
    }
    CHECK(ending_of([&] {
            s.spill(batch);
          }).find("free(" + hex(static_cast<char*>(bad) + 8) + "): interior pointer") !=
          std::string::npos);
  }
  s.t.check();
}

TEST_CASE("shards: what lies idle in one another takes before it grows") {
  TwoShards s;
  // Of every span one object stays.
  constexpr std::size_t kSpans = 8;
  const Objects objects = s.refill(0, kSpans * s.size().objects);
  Objects freed;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (i % s.size().objects != 0) freed.push_back(objects[i]);
  }
  s.spill(freed);
  s.shards[0][s.cls].trim();
  const auto of_first = [&](const Objects& taken) {
    return static_cast<std::size_t>(std::count_if(
        taken.begin(), taken.end(), [&](void* object) { return s.shard_of(object) == 0; }));
  };
  const auto pass_rounds = [&](std::uint8_t rounds) {
    for (std::uint8_t i = 0; i < rounds; ++i) {
      s.t.fake.pass_ms(kAgeMs);
      s.t.heap.age(s.t.os.now_ms());
    }
  };
  SECTION("after a while") {
    pass_rounds(kQuietRounds);
    const PageCount in_use = s.t.heap.stats().in_use;
    CHECK(of_first(s.refill(1, freed.size())) == freed.size());
    CHECK(s.t.heap.stats().in_use == in_use);
    CHECK(of_first(s.refill(1, 1)) == 0);
  }
  SECTION("but what was touched lately stays for its own threads") {
    pass_rounds(kQuietRounds - 1);
    CHECK(of_first(s.refill(1, 100)) == 0);
  }
  SECTION("or the OS refuses") {
    s.t.fake.fail(test::OsCall::kReserve, 1, test::kAlways);
    while (s.t.heap.acquire_small(kClassLargest, 1).front() != nullptr) {
    }
    while (s.t.heap.acquire_small(s.cls, 1).front() != nullptr) {
    }
    CHECK(of_first(s.refill(1, freed.size())) == freed.size());
    CHECK(s.refill(1, 1).empty());
    s.t.fake.stop_failing();
  }
  SECTION("the fullest spans first") {
    // One has few free objects, and has had them for as long.
    const Objects again = s.refill_alone(0, s.size().objects - 4U);
    pass_rounds(kQuietRounds);
    const Objects taken = s.refill(1, 3);
    CHECK(of_first(taken) == 3);
    CHECK(s.t.map->span_at(PageId::of(taken[0])) == s.t.map->span_at(PageId::of(again[0])));
  }
  s.t.check();
}

TEST_CASE("shards: spans that are held back go to the shard that had them, or to another") {
  TwoShards s;
  const std::size_t count = 8 * std::size_t{s.size().objects};
  Objects objects[2] = {s.refill(0, count), s.refill(1, count)};
  std::set<Span*> spans[2];
  for (unsigned shard = 0; shard < 2; ++shard) {
    for (void* object : objects[shard]) {
      spans[shard].insert(s.t.map->span_at(PageId::of(object)));
    }
    s.spill(objects[shard]);
  }
  s.t.trim();
  REQUIRE(s.spans(0) + s.spans(1) == 0);
  const PageCount free = s.t.heap.stats().free;
  SECTION("to its own") {
    for (void* object : s.refill_alone(1, count)) {
      REQUIRE(spans[1].count(s.t.map->span_at(PageId::of(object))) == 1);
    }
    for (void* object : s.refill_alone(0, count)) {
      REQUIRE(spans[0].count(s.t.map->span_at(PageId::of(object))) == 1);
    }
  }
  SECTION("all to one") {
    CHECK(s.refill_alone(0, 2 * count).size() == 2 * count);
    CHECK(s.t.heap.stats().free + PageCount{spans[0].size() + spans[1].size()} == free);
    for (const std::set<Span*>& set : spans) {
      for (const Span* span : set) CHECK(span->shard() == 0);
    }
  }
  SECTION("dissolved for a class of another") {
    s.cls = kClass1024;
    const PageCount mapped = s.t.heap.stats().mapped;
    CHECK(s.refill_alone(1, 8).size() == 8);
    CHECK(s.t.heap.stats().mapped == mapped);
  }
  s.t.check();
}

TEST_CASE("shards: figures are of all", "[I8]") {
  TwoShards s;
  const Objects first = s.refill(0, 100);
  const Objects second = s.refill(1, 70);
  const CentralStats sum = s.t.shards->stats(s.cls);
  CHECK(sum.objects - sum.free - sum.stored == 170);
  CHECK(sum.refilled == 170);
  CHECK(sum.spans == s.spans(0) + s.spans(1));
}

TEST_CASE("shards: threads that bring each other's objects home leave all in order", "[I7][I8]") {
  Tiers t;
  constexpr std::size_t kThreads = 4;
  CentralCache* shards[kThreads] = {t.shards->first()};
  for (std::size_t i = 1; i < kThreads; ++i) shards[i] = test::add_shard(*t.shards);
  const unsigned classes[] = {kClass48, kClass1024, class_of(5000)};
  std::vector<std::atomic<void*>> slots(256);
  test::in_threads(kThreads, [&](std::size_t thread) {
    test::Random random(thread);
    for (std::size_t i = 0; i < 200 * test::kRounds; ++i) {
      const std::size_t kind = random.below(std::size(classes));
      const unsigned cls = classes[kind];
      void* objects[8];
      const std::size_t count = t.shards->refill(shards[thread], cls, objects, 8);
      for (std::size_t k = 0; k < count; ++k) {
        memset(objects[k], static_cast<int>(cls), 48);
        const std::size_t place = random.below(slots.size()) / 3 * 3 % 252 + kind;
        objects[k] = slots[place].exchange(objects[k]);
      }
      std::size_t others = 0;
      for (void* object : objects) {
        if (object != nullptr) objects[others++] = object;
      }
      t.shards->spill(cls, objects, others, {Caller::kFree});
      if (i % 64 == 0) t.check();
    }
  });
  for (std::size_t i = 0; i < slots.size(); ++i) {
    void* object = slots[i];
    if (object != nullptr) t.shards->spill(classes[i % 3], &object, 1, {Caller::kFree});
  }
  t.check();
  CHECK(t.away() == 0);
  t.trim();
  CHECK(t.heap.stats().in_use == PageCount{});
}

// --- Which threads get another shard -----------------------------------------------------------

// How many shards have spans.
std::size_t shards_in_use(Heap& heap) {
  std::set<unsigned> shards;
  Inspection::for_each_span(
      heap,
      [](const SpanView& span, std::size_t, void* context) {
        if (span.state == SpanState::kSmall) {
          static_cast<std::set<unsigned>*>(context)->insert(span.shard);
        }
        return 0;
      },
      &shards);
  return shards.size();
}

// Two threads that need refills in turn, in steps that are `ms` apart; in how many shards what they
// have is then.
std::size_t shards_after_turns(FakeOs& fake, Heap& heap, std::uint32_t ms) {
  constexpr std::size_t kBatch = kSizeClasses[kClass1024].batch;
  constexpr std::size_t kSteps = 4 * kScavengePeriod;
  std::barrier<> turn(2);
  std::atomic<std::size_t> shards{0};
  test::in_threads(2, [&](std::size_t thread) {
    std::vector<void*> objects;
    for (std::size_t i = 0; i < kSteps; ++i) {
      turn.arrive_and_wait();
      for (std::size_t k = 0; k < kBatch; ++k) objects.push_back(heap.allocate(1024));
      if (thread == 0) fake.pass_ms(ms);
    }
    turn.arrive_and_wait();
    if (thread == 0) shards = shards_in_use(heap);
    turn.arrive_and_wait();
    for (void* object : objects) heap.deallocate(object);
  });
  return shards;
}

TEST_CASE("shards: threads that meet often at one get one each") {
  FakeOs fake;
  Options options;
  const std::string but = GENERATE(as<std::string>{}, "", "there is one processor",
                                   "they meet rarely", "bad pointers are ignored");
  CAPTURE(but);
  if (but == "there is one processor") fake.set_processors(1);
  if (but == "bad pointers are ignored") options.on_bad_free = Options::kIgnore;
  const std::uint32_t ms = but == "they meet rarely" ? kTickMs : 0;
  const std::size_t expected = but.empty() ? 2 : 1;
  TestHeap heap(fake.os(), options);
  CHECK(shards_after_turns(fake, *heap, ms) == expected);
  CHECK(Inspection::violation(*heap) == nullptr);
  heap->trim();
  heap->check();
  heap->check_caches();
}

TEST_CASE("shards: all are held while a process forks, and both sides go on with them") {
  FakeOs fake;
  TestHeap heap(fake.os());
  REQUIRE(shards_after_turns(fake, *heap, 0) == 2);
  ForkHold::prepare(*heap);
  CHECK(ending_of([&] {
          ForkHold::child(*heap);
          heap->check();
          if (shards_after_turns(fake, *heap, 0) != 2) _exit(1);
          heap->check();
          _exit(0);
        }) == "exit 0: ");
  ForkHold::parent(*heap);
  CHECK(shards_after_turns(fake, *heap, 0) == 2);
  heap->check();
}

}  // namespace
}  // namespace minitc
