// Random sequences of operations on a heap, checked step by step against a plain record of what the
// program holds: where, how many bytes, filled with what.
//
//   MODEL_SEED=n    runs the one round of that seed (a failure prints it)
//   MODEL_ROUNDS=n  runs that many rounds
#include <stdlib.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/heap.h"
#include "core/stats.h"
#include "test/unit/support.h"

TEST_THREAD_SANITIZER_OPTIONS()

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::FakeOs;
using test::OsCall;
using test::Random;
using test::TestHeap;

std::vector<std::uint64_t> seeds(std::size_t rounds) {
  if (const char* const seed = getenv("MODEL_SEED"); seed != nullptr) {
    return {strtoull(seed, nullptr, 10)};
  }
  if (const char* const more = getenv("MODEL_ROUNDS"); more != nullptr) {
    rounds = strtoull(more, nullptr, 10);
  }
  std::vector<std::uint64_t> all(rounds);
  for (std::size_t i = 0; i < rounds; ++i) all[i] = i + 1;
  return all;
}

// Every class as often as any other, and with it the sizes at its edges; some sizes above; a few
// that nobody can have.
std::size_t random_size(Random& random) {
  const std::size_t kind = random.below(100);
  if (kind < 35) return random.below(200);
  if (kind < 88) {
    const unsigned cls = 1 + static_cast<unsigned>(random.below(kNumClasses - 1));
    const std::size_t bytes = kSizeClasses[cls].bytes;
    const std::size_t step = bytes - kSizeClasses[cls - 1].bytes;
    return random.below(3) == 0 ? bytes + random.below(2) : bytes - random.below(step);
  }
  if (kind < 97) return kMaxSmall + random.below(std::size_t{1} << (14 + random.below(7)));
  if (kind < 99) return kMoveBytes + random.below(2 * 1024 * 1024);
  return SIZE_MAX - random.below(std::size_t{1} << random.below(64));
}

Options random_options(Random& random) {
  Options options;
  options.check_free = random.below(6) == 0 ? 1 : 0;
  const std::size_t totals[] = {0, 64 * 1024, 1024 * 1024, options.thread_cache_total};
  options.thread_cache_total = totals[random.below(4)];
  const std::size_t bounds[] = {1, 256 * 1024, 8 * 1024 * 1024, 0};
  options.free_bound = bounds[random.below(4)];
  return options;
}

std::size_t random_page_bytes(Random& random) {
  const std::size_t sizes[] = {4096, 16 * 1024, 64 * 1024};
  return sizes[random.below(3)];
}

FakeOs::Layout random_layout(Random& random) {
  return static_cast<FakeOs::Layout>(random.below(3));
}

// --- One thread ---------------------------------------------------------------------------------

class Model {
 public:
  explicit Model(std::uint64_t seed, bool commits_crimes = false)
      : random_(seed),
        commits_crimes_(commits_crimes),
        page_bytes_(random_page_bytes(random_)),
        fake_(page_bytes_, random_layout(random_)),
        heap_(fake_.os(), options()) {
    refusal_rate_ = random_.below(2) == 0 ? 0 : 2 + random_.below(30);
    fake_.drop_half_when_refused(random_.below(2) == 0);
    const Move moves[] = {Move::kRefused, Move::kSourceLost, Move::kTargetLost};
    fake_.failed_move_is(moves[random_.below(3)]);
  }

  // The first thing that went wrong, or nothing.
  std::string run(std::size_t steps) {
    for (std::size_t i = 0; i < steps && fault_.empty(); ++i) {
      if (i % 512 == 0) {
        // Refusals come in bouts, so that there is something to refuse.
        fake_.fail_one_in(random_.below(2) == 0 ? 0 : refusal_rate_, random_.next());
      }
      step();
      if (i % 64 == 0) check();
    }
    fake_.fail_one_in(0, 0);
    while (!live_.empty() && fault_.empty()) deallocate(live_.begin());
    check();
    heap_->trim();
    check();
    finish();
    return fault_;
  }

 private:
  struct Object {
    std::size_t usable;
    unsigned char fill;
  };
  using Map = std::map<char*, Object>;

  void expect(bool holds, const char* what) {
    if (!holds && fault_.empty()) fault_ = what;
  }

  Options options() {
    Options options = random_options(random_);
    // Without thread caches every bad pointer is found at the call.
    if (commits_crimes_) options.check_free = 1;
    if (commits_crimes_) options.on_bad_free = Options::kIgnore;
    return options;
  }

  void step() {
    if (commits_crimes_ && random_.below(3) == 0) commit_crime();
    const std::size_t kind = random_.below(1000);
    const bool full = live_.size() > 500 || live_bytes_ > (std::size_t{24} << 20);
    if (kind < 3) {
      heap_->trim();
    } else if (kind < 440 && !full) {
      allocate();
    } else if (live_.empty()) {
      allocate();
    } else if (kind < 600) {
      resize(pick());
    } else {
      deallocate(pick());
    }
  }

  Map::iterator pick() {
    // Not quite uniform, but cheap: the first object from a random one's address on.
    const std::size_t span = static_cast<std::size_t>(live_.rbegin()->first - live_.begin()->first);
    return live_.lower_bound(live_.begin()->first + random_.below(span + 1));
  }

  // Nothing but the beginning of a live object can be freed or resized, or has a size.
  void commit_crime() {
    char* ptr = reinterpret_cast<char*>(random_.next() >> random_.below(64));
    const std::size_t kind = random_.below(8);
    if (kind < 5 && !live_.empty()) {  // in an object, often near its ends, or behind it
      const auto [object, is] = *pick();
      const std::size_t offset = random_.below(is.usable + kPageBytes);
      ptr = object + (random_.below(2) == 0 ? offset : offset % 64);
    } else if (kind < 7 && !graves_.empty()) {
      const auto grave = graves_.lower_bound(ptr);
      ptr = grave == graves_.end() ? graves_.begin()->first : grave->first;
    }
    if (ptr == nullptr || live_.count(ptr) != 0) return;
    switch (random_.below(4)) {
      case 0:
        expect(heap_->resize(ptr, random_size(random_), 1) == nullptr, "a bad pointer is resized");
        break;
      case 1:
        expect(heap_->usable_size(ptr, 1) == 0, "a bad pointer has a size");
        break;
      default:
        heap_->deallocate_slow(ptr, 1);
    }
  }

  void allocate() {
    const std::size_t bytes = random_size(random_);
    const std::size_t refused = fake_.refused();
    char* ptr = nullptr;
    std::size_t alignment = bytes < 9 ? 8 : 16;
    const std::size_t kind = random_.below(10);
    if (kind < 6) {
      ptr = static_cast<char*>(heap_->allocate(bytes));
    } else if (kind < 8) {
      ptr = static_cast<char*>(heap_->allocate_zeroed(bytes));
      if (ptr != nullptr) expect(all_zero(ptr, bytes), "a zeroed object is not zero");
    } else {
      alignment = std::size_t{1} << random_.below(random_.below(8) == 0 ? 20 : 14);
      ptr = static_cast<char*>(heap_->allocate_aligned(bytes, alignment));
    }
    if (ptr == nullptr) {
      expect(bytes > PTRDIFF_MAX || fake_.refused() != refused, "null, and the OS refused nothing");
      return;
    }
    expect(bytes <= PTRDIFF_MAX, "an object of more than PTRDIFF_MAX bytes");
    expect(reinterpret_cast<std::uintptr_t>(ptr) % alignment == 0, "an object is not aligned");
    add(ptr, bytes);
  }

  void add(char* ptr, std::size_t bytes) {
    const std::size_t usable = heap_->usable_size(ptr);
    expect(usable >= bytes && usable > 0, "an object is smaller than was asked for");
    const auto next = live_.lower_bound(ptr);
    expect(next == live_.end() || ptr + usable <= next->first, "an object overlaps the next");
    if (next != live_.begin()) {
      const auto before = std::prev(next);
      expect(before->first + before->second.usable <= ptr, "an object overlaps the one before");
    }
    forget_graves(ptr, usable);
    const auto fill = static_cast<unsigned char>(random_.next());
    memset(ptr, fill, usable);
    live_[ptr] = {usable, fill};
    live_bytes_ += usable;
  }

  bool is_intact(Map::const_iterator object) const {
    return all_bytes_are(object->first, object->second.usable, object->second.fill);
  }

  void drop(Map::iterator object) {
    live_bytes_ -= object->second.usable;
    live_.erase(object);
  }

  void deallocate(Map::iterator object) {
    const auto [ptr, was] = *object;
    expect(heap_->usable_size(ptr) == was.usable, "an object's size has changed");
    expect(is_intact(object), "an object's bytes have changed");
    drop(object);
    const std::size_t quiet = loud_calls();
    heap_->deallocate(ptr);
    if (loud_calls() == quiet) {
      expect(all_bytes_are(ptr, was.usable, was.fill), "free has changed the object");
      graves_[ptr] = was;
    }
  }

  void resize(Map::iterator object) {
    const auto [ptr, was] = *object;
    std::size_t bytes = random_size(random_);
    if (random_.below(3) == 0) bytes = was.usable / 2 + random_.below(was.usable + 1);  // a bit
    expect(is_intact(object), "an object's bytes have changed");
    const std::size_t refused = fake_.refused();
    const std::size_t quiet = loud_calls();
    char* const moved = static_cast<char*>(heap_->resize(ptr, bytes));
    if (moved == nullptr && bytes != 0) {
      expect(bytes > PTRDIFF_MAX || fake_.refused() != refused, "null, and the OS refused nothing");
      expect(heap_->usable_size(ptr) == was.usable, "a refused resize has changed the size");
      expect(is_intact(object), "a refused resize has changed the object");
      return;
    }
    drop(object);
    if (moved != ptr && loud_calls() == quiet) graves_[ptr] = was;
    if (moved == nullptr) return;
    const std::size_t kept = std::min(was.usable, heap_->usable_size(moved));
    expect(all_bytes_are(moved, kept, was.fill), "resize has lost bytes");
    add(moved, bytes);
  }

  // Calls after which the bytes of free objects may be others: memory was given back or moved, or
  // free pages became metadata for want of any.
  std::size_t loud_calls() const {
    return fake_.calls(OsCall::kDecommit) + fake_.calls(OsCall::kMove) +
           fake_.calls(OsCall::kRenew) + fake_.refused();
  }
  void forget_graves(const char* ptr, std::size_t bytes) {
    auto grave = graves_.lower_bound(const_cast<char*>(ptr));
    while (grave != graves_.begin() &&
           std::prev(grave)->first + std::prev(grave)->second.usable > ptr) {
      --grave;
    }
    while (grave != graves_.end() && grave->first < ptr + bytes) grave = graves_.erase(grave);
  }
  // Freed memory that nobody has got since is as the program left it.
  void check_graves() {
    if (loud_calls() != loud_at_last_check_) graves_.clear();
    loud_at_last_check_ = loud_calls();
    for (const auto& [ptr, was] : graves_) {
      expect(all_bytes_are(ptr, was.usable, was.fill), "a free object's bytes have changed");
    }
    if (graves_.size() > 200) graves_.clear();
  }

  void check() {
    heap_->check();
    heap_->check_caches();
    check_graves();
    Snapshot::take(*heap_, *snapshot_);
    const Snapshot& s = *snapshot_;
    expect(s.live == live_bytes_, "the live bytes are not those of the program");
    expect(s.mapped == s.live + s.thread_cached + s.central + s.page_heap_free + s.returned,
           "the report does not add up");
    expect(s.mapped + s.metadata + fake_.stuck_bytes() == fake_.mapped_bytes(),
           "address space has got lost");
    std::size_t large = 0;
    for (const auto& [ptr, object] : live_) large += object.usable > kMaxSmall ? 1 : 0;
    expect(s.large_count >= large, "a large object is not counted");
  }

  void finish() {
    expect(snapshot_->live == 0, "something is live that nobody has");
    expect(snapshot_->large_count == 0, "a large object is live that nobody has");
    expect(snapshot_->central == 0, "trim has left objects in central caches");
    expect(snapshot_->thread_cached == 0, "trim has left objects in the thread cache");
    if (page_bytes_ <= kPageBytes) {
      expect(snapshot_->page_heap_free == 0, "trim has left pages");
    }
  }

  Random random_;
  bool commits_crimes_;
  std::size_t page_bytes_;
  FakeOs fake_;
  TestHeap heap_;
  std::size_t refusal_rate_ = 0;
  Map live_;
  std::size_t live_bytes_ = 0;
  Map graves_;  // freed, and not in use again as far as we know
  std::size_t loud_at_last_check_ = 0;
  std::unique_ptr<Snapshot> snapshot_ = std::make_unique<Snapshot>();
  std::string fault_;
};

TEST_CASE("model: a heap does what a plain record says, whatever the OS refuses",
          "[I2][I3][I4][I5][I6][I7][I8][I9][I10]") {
  for (const std::uint64_t seed : seeds(6 * test::kRounds)) {
    INFO("MODEL_SEED=" << seed);
    const std::string fault = Model(seed).run(4000);
    REQUIRE(fault == "");
  }
}

TEST_CASE("model: bad pointers that are ignored change nothing", "[I4][I7][I8]") {
  for (const std::uint64_t seed : seeds(3 * test::kRounds)) {
    INFO("MODEL_SEED=" << seed);
    std::string fault;
    const std::string said =
        test::stderr_of([&] { fault = Model(seed, /*commits_crimes=*/true).run(4000); });
    REQUIRE(fault == "");
    CHECK(std::count(said.begin(), said.end(), '\n') == 1);  // all have the same call site
  }
}

// --- Several threads ----------------------------------------------------------------------------

// Objects that wait to be taken over by another thread.
struct Exchange {
  struct Object {
    char* ptr = nullptr;
    std::size_t bytes = 0;
    unsigned char fill = 0;
  };
  static constexpr std::size_t kSlots = 64;

  Object swap(std::size_t slot, Object object) {
    const std::lock_guard guard(mutexes[slot % 4]);
    std::swap(objects[slot], object);
    return object;
  }

  std::mutex mutexes[4];
  Object objects[kSlots];
};

class Worker {
 public:
  Worker(Heap& heap, Exchange& exchange, std::uint64_t seed)
      : heap_(heap), exchange_(exchange), random_(seed) {}

  void run(std::size_t steps) {
    for (std::size_t i = 0; i < steps && !failed; ++i) step();
    for (const Exchange::Object& object : own_) release(object);
  }

  bool failed = false;

 private:
  static constexpr std::size_t kOwn = 40;

  void step() {
    Exchange::Object& own = own_[random_.below(kOwn)];
    switch (random_.below(8)) {
      case 0:  // hand one over and take one that another thread allocated
        own = exchange_.swap(random_.below(Exchange::kSlots), own);
        break;
      case 1:
        resize(own);
        break;
      case 2:
        if (random_.below(64) == 0) heap_.trim();
        break;
      default:
        release(own);
        own = {};
        allocate(own);
    }
  }

  static bool is_intact(const Exchange::Object& object) {
    return all_bytes_are(object.ptr, object.bytes, object.fill);
  }

  std::size_t size() { return std::min(random_size(random_), std::size_t{1} << 20); }

  void allocate(Exchange::Object& own) {
    const std::size_t bytes = size();
    const bool zeroed = random_.below(4) == 0;
    char* const ptr =
        static_cast<char*>(zeroed ? heap_.allocate_zeroed(bytes) : heap_.allocate(bytes));
    if (ptr == nullptr) return;  // refused
    if (zeroed && !all_zero(ptr, bytes)) failed = true;
    own = {ptr, bytes, static_cast<unsigned char>(random_.next())};
    memset(ptr, own.fill, bytes);
  }

  void resize(Exchange::Object& own) {
    if (own.ptr == nullptr) return;
    const std::size_t bytes = size() + 1;
    if (heap_.usable_size(own.ptr) < own.bytes) failed = true;
    char* const ptr = static_cast<char*>(heap_.resize(own.ptr, bytes));
    if (ptr == nullptr) {
      if (!is_intact(own)) failed = true;
      return;
    }
    own.ptr = ptr;
    own.bytes = std::min(own.bytes, bytes);
    if (!is_intact(own)) failed = true;
    own.bytes = bytes;
    memset(ptr, own.fill, bytes);
  }

  void release(const Exchange::Object& object) {
    if (object.ptr == nullptr) return;
    if (!is_intact(object)) failed = true;
    heap_.deallocate(object.ptr);
  }

  Heap& heap_;
  Exchange& exchange_;
  Random random_;
  Exchange::Object own_[kOwn];
};

TEST_CASE("model: threads that exchange objects find each one's bytes as they were left",
          "[I7][I8][I10]") {
  for (const std::uint64_t seed : seeds(3 * test::kRounds)) {
    INFO("MODEL_SEED=" << seed);
    Random random(seed);
    FakeOs fake(random_page_bytes(random), random_layout(random));
    TestHeap heap(fake.os(), random_options(random));
    if (random.below(2) == 0) fake.fail_one_in(20, seed);
    Exchange exchange;
    const std::size_t threads = 2 + random.below(3);
    std::atomic<std::size_t> failed{0};
    for (int generation = 0; generation < 3; ++generation) {
      const std::uint64_t base = random.next();
      test::in_threads(threads, [&](std::size_t thread) {
        Worker worker(*heap, exchange, base + thread);
        worker.run(800);
        if (worker.failed) ++failed;
      });
      REQUIRE(failed == 0);
      heap->check();
      heap->check_caches();
    }
    fake.fail_one_in(0, 0);
    Snapshot s;
    Snapshot::take(*heap, s);
    CHECK(s.threads == 0);
    std::size_t live = 0;
    for (const Exchange::Object& object : exchange.objects) {
      if (object.ptr == nullptr) continue;
      REQUIRE(all_bytes_are(object.ptr, object.bytes, object.fill));
      live += heap->usable_size(object.ptr);
    }
    CHECK(s.live == live);
    for (const Exchange::Object& object : exchange.objects) heap->deallocate(object.ptr);
    heap->trim();
    heap->check();
    Snapshot::take(*heap, s);
    CHECK(s.live == 0);
    CHECK(s.mapped + s.metadata + fake.stuck_bytes() == fake.mapped_bytes());
  }
}

}  // namespace
}  // namespace minitc
