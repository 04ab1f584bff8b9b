#include "core/thread_cache.h"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <memory>
#include <set>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::check_fails;
using test::death;
using test::ending_of;
using test::hex;
using test::OsCall;
using test::Tiers;

constexpr std::ptrdiff_t kBudget = 32 * 1024 * 1024;
constexpr unsigned kClass8 = class_of(8);
constexpr unsigned kClass48 = class_of(48);
constexpr unsigned kClass1024 = class_of(1024);
constexpr unsigned kClassLargest = kNumClasses - 1;

// A cache as a thread uses it.
struct Cached {
  explicit Cached(std::ptrdiff_t budget = kBudget) : t(budget), cache(t.share) {}
  ~Cached() { cache.flush(); }

  void* allocate(unsigned cls) { return cache.is_empty(cls) ? cache.refill(cls) : cache.pop(cls); }
  void deallocate(unsigned cls, void* ptr) {
    if (cache.is_full(cls)) {
      cache.spill(cls, ptr, 0);
    } else {
      cache.push(cls, ptr);
    }
  }
  std::vector<void*> allocate(unsigned cls, std::size_t count) {
    std::vector<void*> objects;
    for (std::size_t i = 0; i < count; ++i) objects.push_back(allocate(cls));
    return objects;
  }
  void deallocate(unsigned cls, const std::vector<void*>& objects) {
    for (void* const object : objects) deallocate(cls, object);
  }
  // Slow calls that leave the class as it was: misses of another one.
  void pass_time(unsigned by = kClassLargest) {
    for (std::uint32_t i = 0; i < kScavengePeriod; ++i) others.push_back(cache.refill(by));
  }
  // One object more than there is room for, which the central cache gives.
  void fill_beyond(unsigned cls) {
    for (bool was_full = false; !was_full;) {
      was_full = cache.is_full(cls);
      void* object = nullptr;
      REQUIRE(t.refill(cls, &object, 1) == 1);
      deallocate(cls, object);
    }
  }
  // All the room that the class may have, empty, as the last refill left it.
  void widen(unsigned cls) {
    while (capacity(cls) < kSizeClasses[cls].max_cached) {
      fill_beyond(cls);
      while (!cache.is_empty(cls)) others.push_back(cache.pop(cls));
      others.push_back(cache.refill(cls));
    }
    while (!cache.is_empty(cls)) others.push_back(cache.pop(cls));
  }
  void check() {
    cache.check();
    t.check();
  }
  std::size_t capacity(unsigned cls) const { return cache.drawn_bytes() / kSizeClasses[cls].bytes; }

  Tiers t;
  ThreadCache cache;
  std::vector<void*> others;
};

TEST_CASE("thread cache: an all-zero cache is empty and full at once", "[I9]") {
  const ThreadCache cache;
  for (unsigned cls = 0; cls < kNumClasses; ++cls) {
    CHECK(cache.is_empty(cls));
    CHECK(cache.is_full(cls));
    CHECK(cache.cached_objects(cls) == 0);
  }
  CHECK(cache.drawn_bytes() == 0);
  cache.check();
}

TEST_CASE("thread cache: what is freed last is handed out first", "[I9]") {
  Cached c;
  const auto objects = c.allocate(kClass48, 4);
  c.deallocate(kClass48, objects);
  for (std::size_t i = 4; i-- != 0;) CHECK(c.allocate(kClass48) == objects[i]);
  c.check();
}

// The most room for a thread that only allocates or only frees a class, and the first.
std::size_t one_way_room(unsigned cls) {
  return std::bit_ceil(std::max<std::size_t>(kSizeClasses[cls].batch, kMinCachedObjects));
}
std::size_t first_room(unsigned cls) {
  const std::size_t bytes = kSizeClasses[cls].bytes;
  std::size_t objects = std::max(kFirstCachedObjects, kFirstCachedBytes / bytes);
  while (objects > 1 && objects * bytes > kMostFirstBytes) objects /= 2;
  return objects;
}

TEST_CASE("thread cache: a thread that only allocates has room for a batch, after slow start",
          "[I9][I10]") {
  for (const unsigned cls : {kClass8, kClass48, kClass1024, kClassLargest}) {
    CAPTURE(cls);
    Cached c;
    std::size_t expected = first_room(cls);
    for (int miss = 0; miss < 20; ++miss) {
      while (!c.cache.is_empty(cls)) c.cache.pop(cls);
      c.cache.refill(cls);
      CHECK(c.capacity(cls) == expected);
      CHECK(c.cache.cached_objects(cls) ==
            std::min<std::size_t>(expected, kSizeClasses[cls].batch) - 1);
      c.cache.check();
      expected = std::min(2 * expected, one_way_room(cls));
    }
  }
}

TEST_CASE("thread cache: a thread that only frees has room for a batch, and spills it whole",
          "[I7][I9]") {
  Cached c;
  const std::size_t most = one_way_room(kClass48);
  std::vector<void*> objects(20 * most);
  for (std::size_t done = 0; done < objects.size();) {
    done += c.t.refill(kClass48, objects.data() + done, objects.size() - done);
  }
  std::size_t largest = 0;
  std::size_t spills = 0;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const std::size_t before = c.cache.cached_objects(kClass48);
    c.deallocate(kClass48, objects[i]);
    const std::size_t now = c.cache.cached_objects(kClass48);
    if (i == 1) CHECK(c.capacity(kClass48) == kFirstCachedObjects);
    if (i == 1 + kFirstCachedObjects) CHECK(c.capacity(kClass48) == 2 * kFirstCachedObjects);
    if (now <= before && i != 0) {
      CHECK(before == most);
      CHECK(now == 1);
      ++spills;
    }
    largest = std::max(largest, now);
  }
  CHECK(largest == most);
  CHECK(c.capacity(kClass48) == most);
  CHECK(spills >= 18);
  c.check();
}

TEST_CASE("thread cache: the first object, which came from another thread, is not handed out again",
          "[I7]") {
  Cached c;
  void* foreign = nullptr;
  REQUIRE(c.t.refill(kClass8, &foreign, 1) == 1);
  c.deallocate(kClass8, foreign);
  CHECK(c.t.away() == 0);
  // What it gets shares no line with it, nor with what another thread gets that does the same.
  const auto line_of = [](const void* ptr) { return reinterpret_cast<std::uintptr_t>(ptr) / 64; };
  ThreadCache other(c.t.share);
  void* const mine = c.allocate(kClass8);
  void* const others = other.refill(kClass8);
  CHECK(mine != foreign);
  CHECK(line_of(mine) != line_of(others));
  other.flush();
}

TEST_CASE("thread cache: a class that runs full and empty in turn doubles, up to its bound",
          "[I9][I10]") {
  for (const unsigned cls : {kClass8, kClass48, kClass1024, kClassLargest}) {
    CAPTURE(cls);
    Cached c;
    std::size_t expected = first_room(cls);
    c.others.push_back(c.cache.refill(cls));
    for (int turn = 0; turn < 20; ++turn) {
      CHECK(c.capacity(cls) == expected);
      expected = std::min<std::size_t>(2 * expected, kSizeClasses[cls].max_cached);
      if (turn % 2 == 0) {
        c.fill_beyond(cls);
      } else {
        while (!c.cache.is_empty(cls)) c.others.push_back(c.cache.pop(cls));
        c.others.push_back(c.cache.refill(cls));
        // Half of the room stays free for what the thread frees.
        CHECK(c.cache.cached_objects(cls) ==
              std::min<std::size_t>(kSizeClasses[cls].batch, expected / 2) - 1);
      }
      c.cache.check();
    }
    CHECK(c.capacity(cls) == kSizeClasses[cls].max_cached);
  }
}

TEST_CASE("thread cache: a class that rarely runs full or empty has little room", "[I7][I9][I10]") {
  const bool to_frees = GENERATE(true, false);
  const unsigned cls = GENERATE(class_of(1024), class_of(6000), class_of(20000));
  CAPTURE(to_frees, cls);
  CHECK(first_room(cls) == (cls == class_of(1024) ? 4 : cls == class_of(6000) ? 2 : 1));
  Cached c;
  const auto run = [&](std::uint32_t rested_ms) {
    c.t.share.ticked_ms += rested_ms;
    if (to_frees) {
      c.fill_beyond(cls);
    } else {
      while (!c.cache.is_empty(cls)) c.others.push_back(c.cache.pop(cls));
      c.others.push_back(c.cache.refill(cls));
    }
    c.check();
    return c.capacity(cls);
  };
  while (run(0) == 0) {  // the first that is freed came from another thread
  }
  for (int i = 0; i < 10; ++i) CHECK(run(kGrowMs) == first_room(cls));
  for (std::size_t room = first_room(cls); room < one_way_room(cls); room *= 2) {
    CHECK(run(kGrowMs - 1) == 2 * room);
  }
  CHECK(run(kShrinkMs - 1) == one_way_room(cls));
  for (std::size_t room = one_way_room(cls); room > first_room(cls); room /= 2) {
    CHECK(run(kShrinkMs) == room / 2);
  }
  CHECK(run(kShrinkMs) == first_room(cls));
}

TEST_CASE("thread cache: room that half of the objects would fill stays", "[I9]") {
  Cached c;
  c.widen(kClass1024);
  const std::size_t room = c.capacity(kClass1024);
  c.t.share.ticked_ms += kShrinkMs;
  c.fill_beyond(kClass1024);  // spills one half
  c.check();
  CHECK(c.capacity(kClass1024) == room);
  CHECK(c.cache.cached_objects(kClass1024) == room / 2 + 1);
}

TEST_CASE("thread cache: an overfull class spills its oldest half", "[I7][I9]") {
  Cached c;
  const unsigned cls = kClass1024;
  const std::size_t max = kSizeClasses[cls].max_cached;
  c.widen(cls);
  std::vector<void*> objects(max + 1);
  REQUIRE(c.t.refill(cls, objects.data(), max + 1) == max + 1);
  for (std::size_t i = 0; i < max; ++i) c.deallocate(cls, objects[i]);
  REQUIRE(c.cache.cached_objects(cls) == max);
  c.deallocate(cls, objects[max]);
  CHECK(c.cache.cached_objects(cls) == max / 2 + 1);
  c.check();
  std::size_t live = 0;
  for (std::size_t i = 0; i < max / 2; ++i) {
    if (c.t.central[cls].find(objects[i]).verdict == Verdict::kLive) ++live;
  }
  CHECK(live == 0);
  for (std::size_t i = max + 1; i-- != max / 2;) CHECK(c.allocate(cls) == objects[i]);
}

// --- The budget ---------------------------------------------------------------------------------

TEST_CASE("thread cache: capacities and what is left of the budget are the cap", "[I10]") {
  const std::ptrdiff_t cap = GENERATE(0, 100, 4096, 65536, 10 * 1024 * 1024);
  CAPTURE(cap);
  Tiers t(cap);
  std::vector<std::unique_ptr<ThreadCache>> caches;
  for (int i = 0; i < 5; ++i) caches.push_back(std::make_unique<ThreadCache>(t.share));
  std::vector<std::pair<unsigned, void*>> objects;
  test::Random random(static_cast<std::uint64_t>(cap));
  std::size_t wrong = 0;
  for (int i = 0; i < 10000; ++i) {
    ThreadCache& cache = *caches[random.below(caches.size())];
    if (random.below(100) < 52 || objects.empty()) {
      const unsigned cls = 1 + static_cast<unsigned>(random.below(50));
      objects.emplace_back(cls, cache.is_empty(cls) ? cache.refill(cls) : cache.pop(cls));
    } else {
      std::swap(objects[random.below(objects.size())], objects.back());
      const auto [cls, object] = objects.back();
      objects.pop_back();
      if (cache.is_full(cls)) {
        cache.spill(cls, object, 0);
      } else {
        cache.push(cls, object);
      }
    }
    if (i % 700 == 0) cache.flush();
    if (i % 10 != 0) continue;
    std::ptrdiff_t sum = t.share.budget_bytes;
    if (sum < 0) ++wrong;
    for (const auto& each : caches) {
      sum += static_cast<std::ptrdiff_t>(each->drawn_bytes());
      each->check();
    }
    if (sum != cap) ++wrong;
  }
  CHECK(wrong == 0);
  t.check();
  for (const auto& each : caches) each->flush();
  CHECK(t.share.budget_bytes == cap);
  CHECK(t.away() == objects.size());
}

TEST_CASE("thread cache: without a budget every object comes and goes singly", "[I10]") {
  Cached c(0);
  const auto objects = c.allocate(kClass48, 100);
  CHECK(std::set<void*>(objects.begin(), objects.end()).size() == 100);
  CHECK(c.t.away() == 100);
  c.deallocate(kClass48, objects);
  CHECK(c.t.away() == 0);
  CHECK(c.cache.drawn_bytes() == 0);
  CHECK(c.t.share.budget_bytes == 0);
  c.check();
  // Nothing was kept back, so a double free is found at the call, and the message does not say
  // late.
  CHECK(ending_of([&] { c.deallocate(kClass48, objects[7]); }) ==
        death("free(" + hex(objects[7]) + "): double free: the object is already free"));
}

TEST_CASE("thread cache: a budget for one growth gives one, to who comes first", "[I10]") {
  constexpr std::ptrdiff_t kFirst = kFirstCachedObjects * 48;
  Tiers t(kFirst + kFirst / kMostOfBudget);
  ThreadCache first(t.share);
  ThreadCache second(t.share);
  CHECK(first.refill(kClass48) != nullptr);
  CHECK(first.drawn_bytes() == kFirst);
  CHECK(t.share.budget_bytes == kFirst / kMostOfBudget);
  CHECK_FALSE(t.share.is_short);
  CHECK(second.refill(kClass48) != nullptr);
  CHECK(second.drawn_bytes() == 0);
  CHECK(t.share.is_short);
  first.flush();
  CHECK(second.refill(kClass48) != nullptr);
  CHECK(second.drawn_bytes() == kFirst);
  second.flush();
  CHECK(t.share.budget_bytes == kFirst + kFirst / kMostOfBudget);
}

TEST_CASE("thread cache: a class that may not grow spills, and loses nothing", "[I7][I10]") {
  Cached c(kFirstCachedObjects * 48 * 5 / 4);
  std::vector<void*> objects(40);
  REQUIRE(c.t.refill(kClass48, objects.data(), 40) == 40);
  c.deallocate(kClass48, objects);
  CHECK(c.capacity(kClass48) == kFirstCachedObjects);
  CHECK(c.cache.cached_objects(kClass48) <= kFirstCachedObjects);
  CHECK(c.t.away() == c.cache.cached_objects(kClass48));
  c.check();
}

TEST_CASE("thread cache: something is always left, and who has much gives up to who comes late",
          "[I10]") {
  constexpr std::ptrdiff_t kTotal = 1024 * 1024;
  Tiers t(kTotal);
  std::vector<std::unique_ptr<ThreadCache>> caches;
  std::vector<void*> objects;
  const auto object_of = [&](unsigned cls) {
    void* object = nullptr;
    if (t.refill(cls, &object, 1) != 1) FAIL("no object of class " << cls);
    return object;
  };
  // Each turns to and fro between a miss and an overflow, so that it wants all it can have.
  const auto work = [&](ThreadCache& cache) {
    for (unsigned cls = 1; cls < kNumClasses; cls += 4) {
      for (int i = 0; i < 12; ++i) {
        while (!cache.is_empty(cls)) objects.push_back(cache.pop(cls));
        objects.push_back(cache.refill(cls));
        while (!cache.is_full(cls)) cache.push(cls, object_of(cls));
        cache.spill(cls, object_of(cls), 0);
      }
    }
  };
  for (int thread = 0; thread < 4; ++thread) {
    caches.push_back(std::make_unique<ThreadCache>(t.share));
    work(*caches.back());
    CHECK(t.share.budget_bytes > 0);
    CHECK(caches.back()->drawn_bytes() > 0);
  }
  for (int round = 0; round < 20; ++round) {
    for (const auto& cache : caches) work(*cache);
  }
  std::ptrdiff_t sum = t.share.budget_bytes;
  for (const auto& cache : caches) {
    sum += static_cast<std::ptrdiff_t>(cache->drawn_bytes());
    CHECK(cache->drawn_bytes() > kTotal / 16);
    CHECK(cache->drawn_bytes() < kTotal / 2);
    cache->check();
    cache->flush();
  }
  CHECK(sum == kTotal);
}

// --- Idle ---------------------------------------------------------------------------------------

// A cache with objects of several classes, as it was when its owner went to sleep.
struct Idle : Cached {
  Idle() {
    for (const unsigned cls : {kClass8, kClass48, kClass1024}) {
      deallocate(cls, allocate(cls, 100));
      objects.push_back(allocate(cls));
    }
    deallocate(kClassLargest, allocate(kClassLargest, 1));
  }
  std::size_t cached() const {
    std::size_t sum = 0;
    for (unsigned cls = 1; cls < kNumClasses; ++cls) sum += cache.cached_objects(cls);
    return sum;
  }
  std::vector<void*> objects;
};

TEST_CASE("thread cache: a parked cache is empty and full, and comes back as it was", "[I9][I10]") {
  Idle c;
  const std::size_t cached = c.cached();
  const std::size_t drawn = c.cache.drawn_bytes();
  REQUIRE(c.cache.park());
  for (unsigned cls = 0; cls < kNumClasses; ++cls) {
    CHECK(c.cache.is_empty(cls));
    CHECK(c.cache.is_full(cls));
  }
  CHECK(c.cached() == cached);
  CHECK(c.cache.drawn_bytes() == drawn);
  c.check();
  c.t.fake.pass_ms(kIdleMs - 1);
  CHECK_FALSE(c.cache.take_if_idle());
  REQUIRE(c.cache.lease());
  CHECK_FALSE(c.cache.is_empty(kClass48));
  c.check();
  CHECK(c.cached() == cached);
  c.t.fake.pass_ms(1);
  CHECK_FALSE(c.cache.take_if_idle());
  CHECK(c.cache.park());  // not while it is leased
  CHECK_FALSE(c.cache.is_empty(kClass48));
  c.cache.end_lease();
}

TEST_CASE("thread cache: of an idle cache the newest object of each class stays, and begins anew",
          "[I7][I9][I10]") {
  Idle c;
  c.t.fake.pass_ms(UINT32_MAX - 10);
  REQUIRE(c.cache.park());
  c.t.fake.pass_ms(kIdleMs);  // the clock wraps around
  REQUIRE(c.cache.take_if_idle());
  CHECK_FALSE(c.cache.lease());  // the owner comes now, and has to do without
  REQUIRE(c.cache.rob());
  CHECK(c.cached() == 4);
  CHECK(c.cache.drawn_bytes() == 8 + 48 + 1024 + std::size_t{kSizeClasses[kClassLargest].bytes});
  CHECK(c.t.share.budget_bytes + static_cast<std::ptrdiff_t>(c.cache.drawn_bytes()) == kBudget);
  CHECK(c.t.away() == c.objects.size() + 4);
  c.t.fake.pass_ms(2 * kIdleMs);
  CHECK_FALSE(c.cache.take_if_idle());  // once is enough
  REQUIRE(c.cache.park());
  c.check();
  CHECK(c.cache.is_full(kClass48));
  REQUIRE(c.cache.lease());
  CHECK(c.cached() == 0);
  CHECK(c.cache.drawn_bytes() == 0);
  CHECK(c.t.away() == c.objects.size());
  CHECK(c.t.share.budget_bytes == kBudget);
  void* const object = c.cache.refill(kClass48);
  CHECK(object != nullptr);
  c.cache.end_lease();
  c.check();
}

// The owner was stopped between its test and its change of a stack, and goes on when all is over.
TEST_CASE("thread cache: a pop or a push that a robbery comes upon ends well", "[I7][I10]") {
  Idle c;
  const bool pops = GENERATE(true, false);
  const bool goes_on_before = GENERATE(true, false);
  void* freed = nullptr;
  REQUIRE(c.t.refill(kClass48, &freed, 1) == 1);
  void* popped = nullptr;
  const auto go_on = [&] {
    pops ? void(popped = c.cache.pop(kClass48)) : c.cache.push(kClass48, freed);
  };
  REQUIRE_FALSE(c.cache.is_empty(kClass48));
  REQUIRE_FALSE(c.cache.is_full(kClass48));
  REQUIRE(c.cache.park());
  if (goes_on_before) go_on();
  c.t.fake.pass_ms(kIdleMs);
  REQUIRE(c.cache.take_if_idle());
  REQUIRE(c.cache.rob());
  if (!goes_on_before) go_on();
  REQUIRE(c.cache.lease());
  CHECK(c.cached() == 0);
  CHECK(c.cache.drawn_bytes() == 0);
  CHECK(c.t.away() == c.objects.size() + (pops ? 2 : 0));  // `popped` and `freed`
  CHECK((popped != nullptr) == pops);
  if (pops) CHECK(c.t.central[kClass48].has_away(popped));
  c.cache.end_lease();
  c.check();
}

TEST_CASE("thread cache: an owner that ends meanwhile leaves its cache to who is at work on it",
          "[I10]") {
  Idle c;
  REQUIRE(c.cache.park());
  c.t.fake.pass_ms(kIdleMs);
  REQUIRE(c.cache.take_if_idle());
  CHECK_FALSE(c.cache.lease_to_end());
  CHECK_FALSE(c.cache.rob());
  CHECK(c.cached() == 0);
  CHECK(c.t.share.budget_bytes == kBudget);
  CHECK(c.t.away() == c.objects.size());
}

// --- Shrinking ----------------------------------------------------------------------------------

TEST_CASE("thread cache: what a class does not need any more goes back, with its room",
          "[I9][I10]") {
  Cached c;
  c.widen(kClass48);
  const std::size_t room = c.capacity(kClass48);
  c.deallocate(kClass48, c.allocate(kClass48, 1000));
  REQUIRE(c.cache.cached_objects(kClass48) >= room / 2);
  std::size_t before = c.cache.cached_objects(kClass48);
  c.pass_time();
  for (int i = 0; i < 15; ++i) {
    c.pass_time();
    c.check();
    const std::size_t now = c.cache.cached_objects(kClass48);
    CHECK(now <= before / 2);
    before = now;
  }
  CHECK(before == 0);
  // Only the class that was in use has room.
  CHECK(c.cache.drawn_bytes() == c.capacity(kClassLargest) * kSizeClasses[kClassLargest].bytes);
  CHECK(c.t.share.budget_bytes + static_cast<std::ptrdiff_t>(c.cache.drawn_bytes()) == kBudget);
}

TEST_CASE("thread cache: what a class keeps using stays", "[I9]") {
  Cached c;
  const auto objects = c.allocate(kClass48, 1000);
  c.deallocate(kClass48, objects);
  const std::size_t before = c.cache.cached_objects(kClass48);
  for (int i = 0; i < 10; ++i) {
    // Down to the last object, and up again.
    std::vector<void*> taken;
    while (c.cache.cached_objects(kClass48) > 1) taken.push_back(c.allocate(kClass48));
    std::reverse(taken.begin(), taken.end());
    c.deallocate(kClass48, taken);
    c.pass_time();
  }
  CHECK(c.cache.cached_objects(kClass48) >= before - 1);
  c.check();
}

TEST_CASE("thread cache: slack that is wanted after all costs no trip to the central cache",
          "[I9]") {
  Cached c;
  const auto objects = c.allocate(kClass48, 1000);
  c.deallocate(kClass48, objects);
  c.pass_time();  // half of it is slack now
  const std::size_t cached = c.cache.cached_objects(kClass48);
  const CentralStats before = c.t.central[kClass48].stats();
  std::size_t pops = 0;
  while (!c.cache.is_empty(kClass48)) {
    c.cache.pop(kClass48);
    ++pops;
  }
  CHECK(pops < cached);
  CHECK(c.cache.cached_objects(kClass48) == cached - pops);
  for (; pops < cached; ++pops) CHECK(c.allocate(kClass48) != nullptr);
  CHECK(c.cache.cached_objects(kClass48) == 0);
  const CentralStats after = c.t.central[kClass48].stats();
  CHECK(after.free == before.free);
  CHECK(after.stored == before.stored);
  c.check();
}

TEST_CASE("thread cache: a flush gives back all objects, all room and all of the budget",
          "[I7][I9][I10]") {
  Cached c;
  std::vector<std::pair<unsigned, void*>> kept;
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const auto objects = c.allocate(cls, 10);
    kept.emplace_back(cls, objects[0]);
    for (std::size_t i = 1; i < objects.size(); ++i) c.deallocate(cls, objects[i]);
  }
  REQUIRE(c.cache.drawn_bytes() > 0);
  c.cache.flush();
  CHECK(c.cache.drawn_bytes() == 0);
  CHECK(c.t.share.budget_bytes == kBudget);
  CHECK(c.t.away() == kept.size());
  for (unsigned cls = 0; cls < kNumClasses; ++cls) {
    CHECK(c.cache.is_empty(cls));
    CHECK(c.cache.is_full(cls));
  }
  c.check();
  for (const auto& [cls, object] : kept) c.deallocate(cls, object);
  CHECK(c.allocate(kClass48) != nullptr);  // it works on
  c.check();
}

TEST_CASE("thread cache: growing and flushing over and over needs no new metadata") {
  Cached c;
  std::size_t metadata = 0;
  for (int i = 0; i < 300; ++i) {
    c.deallocate(kClass48, c.allocate(kClass48, 300));
    c.deallocate(kClass8, c.allocate(kClass8, 100));
    c.cache.flush();
    c.t.trim();
    if (i == 2) metadata = c.t.fake.metadata_bytes();
  }
  CHECK(c.t.fake.metadata_bytes() == metadata);
}

TEST_CASE(
    "thread cache: an array that was outgrown serves the next class, and goes back in the end") {
  Cached c;
  const auto free_blocks = [&c] {
    std::size_t seen = 0;
    const LockGuard guard(c.t.arena.lock());
    REQUIRE(c.t.arena.violation_locked(seen) == nullptr);
    return seen;
  };
  c.deallocate(kClass48, c.allocate(kClass48, 300));
  c.cache.flush();
  const std::size_t at_rest = free_blocks();
  REQUIRE(at_rest > 1);  // the arrays of one class, which was given longer ones
  c.deallocate(kClass48, c.allocate(kClass48, 300));
  CHECK(free_blocks() == 0);
  SECTION("while the thread goes on") {
    c.pass_time();
    CHECK(free_blocks() > 0);
  }
  c.cache.flush();
  CHECK(free_blocks() >= at_rest);
}

// --- Bad pointers -------------------------------------------------------------------------------

TEST_CASE("thread cache: a double free is found when it leaves, and said to be late", "[I7]") {
  Cached c;
  const auto objects = c.allocate(kClass48, 3);
  c.deallocate(kClass48, objects);
  c.deallocate(kClass48, objects[1]);
  CHECK(ending_of([&] { c.cache.flush(); }) ==
        death("free(" + hex(objects[1]) +
              "): double free: the object is already free (found when it left the thread cache; "
              "MINITC_CHECK_FREE=1 finds it at the call)"));
  c.allocate(kClass48);  // the test goes on without it
}

TEST_CASE("thread cache: an interior pointer is found when it leaves", "[I7]") {
  Cached c;
  char* const object = static_cast<char*>(c.allocate(kClass48));
  c.deallocate(kClass48, object + 16);
  CHECK(ending_of([&] { c.cache.flush(); }) ==
        death("free(" + hex(object + 16) + "): interior pointer: the object begins at " +
              hex(object) +
              " and has 48 bytes (found when it left the thread cache; "
              "MINITC_CHECK_FREE=1 finds it at the call)"));
  c.allocate(kClass48);
}

TEST_CASE("thread cache: the self-check sees stacks that are wrong", "[I9]") {
  Cached c;
  c.allocate(kClass8);  // its array lies below the next, and is what too many pops read
  c.allocate(kClass48);
  CHECK(check_fails([&] {  // more taken than there was
    for (int i = 0; i < 5; ++i) c.cache.pop(kClass48);
    c.cache.check();
  }));
  CHECK(check_fails([&] {  // more put than there is room
    int object = 0;
    for (std::size_t i = 0; i < 5; ++i) c.cache.push(kClass48, &object);
    c.cache.check();
  }));
}

// --- Refusals -----------------------------------------------------------------------------------

TEST_CASE("thread cache: without memory for arrays objects come and go singly", "[I10]") {
  Cached c;
  const auto first = c.allocate(kClass8, 2);  // a span with free objects is there
  c.cache.flush();
  REQUIRE(c.t.large(kMinChunkPages - 1) != nullptr);  // and no run that could become metadata
  c.t.exhaust_metadata(MetadataArena::kMinShift);
  const auto objects = c.allocate(kClass8, 20);
  for (void* const object : objects) CHECK(object != nullptr);
  CHECK(c.cache.drawn_bytes() == 0);
  CHECK(c.t.share.budget_bytes == kBudget);
  c.deallocate(kClass8, objects);
  CHECK(c.t.away() == first.size());
  c.check();
  c.t.fake.stop_failing();
  c.deallocate(kClass8, first);
  CHECK(c.cache.drawn_bytes() > 0);
  CHECK(c.t.share.budget_bytes + static_cast<std::ptrdiff_t>(c.cache.drawn_bytes()) == kBudget);
}

TEST_CASE("thread cache: whichever call the OS refuses, nothing is lost", "[I7][I9][I10]") {
  std::size_t nth = 0;
  for (bool refused = true; refused;) {
    ++nth;
    CAPTURE(nth);
    Cached c;
    c.t.fake.fail_any(nth);
    std::vector<std::pair<unsigned, void*>> objects;
    for (const unsigned cls : {kClass8, kClass48, kClass1024, kClassLargest}) {
      for (int i = 0; i < 60; ++i) {
        void* const object = c.allocate(cls);
        if (object != nullptr) objects.emplace_back(cls, object);
      }
      c.check();
    }
    CHECK(c.t.share.budget_bytes + static_cast<std::ptrdiff_t>(c.cache.drawn_bytes()) == kBudget);
    for (const auto& [cls, object] : objects) c.deallocate(cls, object);
    c.check();
    c.cache.flush();
    CHECK(c.t.away() == 0);
    CHECK(c.t.share.budget_bytes == kBudget);
    refused = c.t.fake.refused() != 0;
  }
  CHECK(nth > 3);
}

TEST_CASE("thread cache: when there is no memory a miss gives null, and later an object") {
  Cached c;
  c.t.fake.fail_any(1, test::kAlways);
  CHECK(c.allocate(kClass48) == nullptr);
  CHECK(c.allocate(kClassLargest) == nullptr);
  c.check();
  c.t.fake.stop_failing();
  CHECK(c.allocate(kClass48) != nullptr);
  CHECK(c.allocate(kClassLargest) != nullptr);
  c.check();
}

// --- Threads ------------------------------------------------------------------------------------

TEST_CASE("thread cache: threads with a cache each share the budget and the central caches",
          "[I7][I10]") {
  constexpr std::ptrdiff_t kSmallBudget = 200 * 1024;
  Tiers t(kSmallBudget);
  std::atomic<void*> exchange[64] = {};
  constexpr unsigned kClasses[] = {kClass8, kClass48, kClass1024};
  std::atomic<std::size_t> spoiled{0};
  test::in_threads(8, [&](std::size_t thread) {
    ThreadCache cache(t.share);
    test::Random random(thread);
    for (std::size_t i = 0; i < 2000 * test::kRounds; ++i) {
      const std::size_t slot = random.below(64);
      const unsigned cls = kClasses[slot % 3];
      void* object = cache.is_empty(cls) ? cache.refill(cls) : cache.pop(cls);
      memset(object, static_cast<int>(slot), 8);
      object = exchange[slot].exchange(object);
      if (object == nullptr) continue;
      if (!test::all_bytes_are(object, 8, static_cast<unsigned char>(slot))) ++spoiled;
      if (cache.is_full(cls)) {
        cache.spill(cls, object, 0);
      } else {
        cache.push(cls, object);
      }
      if (i % 500 == 0) cache.check();
    }
    cache.flush();
  });
  CHECK(spoiled == 0);
  CHECK(t.share.budget_bytes == kSmallBudget);
  std::size_t left = 0;
  for (std::atomic<void*>& slot : exchange) left += slot != nullptr ? 1 : 0;
  CHECK(t.away() == left);
  t.check();
}

}  // namespace
}  // namespace minitc
