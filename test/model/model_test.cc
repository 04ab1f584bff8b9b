// The model of model.h, driven by a seed and by what the fuzzer found worth keeping; and threads
// that exchange objects.
//
//   MODEL_SEED=n    runs the one round of that seed (a failure prints it)
//   MODEL_ROUNDS=n  runs that many rounds
#include <stdlib.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

#include "core/heap.h"
#include "core/stats.h"
#include "test/model/model.h"
#include "test/unit/support.h"

TEST_THREAD_SANITIZER_OPTIONS()

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::FakeOs;
using test::Seeded;
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

TEST_CASE("model: a heap does what a plain record says, whatever the OS refuses",
          "[I2][I3][I4][I5][I6][I7][I8][I9][I10]") {
  constexpr test::ModelLimits kLimits{
      .steps = 3000, .objects = 1000, .bytes = std::size_t{24} << 20, .check_every = 64};
  for (const std::uint64_t seed : seeds(6 * test::kRounds)) {
    INFO("MODEL_SEED=" << seed);
    Seeded choices(seed);
    test::run_model(choices, kLimits);
    SUCCEED();
  }
}

#if !defined(TEST_TSAN)  // of use for threads only, and ten times as slow
// make test runs at the top of the repository.
TEST_CASE("model: inputs that the fuzzer has found do no harm",
          "[I2][I3][I4][I5][I6][I7][I8][I9][I10]") {
  std::size_t inputs = 0;
  for (const auto& entry : std::filesystem::directory_iterator("test/fuzz/corpus")) {
    INFO(entry.path());
    std::ifstream file(entry.path(), std::ios::binary);
    test::run_input(std::string(std::istreambuf_iterator<char>(file), {}));
    ++inputs;
  }
  CHECK(inputs > 10);
}
#endif

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

  std::size_t size() { return std::min(test::choose_size(random_), std::size_t{1} << 20); }

  void allocate(Exchange::Object& own) {
    const std::size_t bytes = size();
    const bool zeroed = random_.below(4) == 0;
    char* const ptr =
        static_cast<char*>(zeroed ? heap_.allocate_zeroed(bytes) : heap_.allocate(bytes));
    if (ptr == nullptr) return;  // refused
    if (zeroed && !all_zero(ptr, bytes)) failed = true;
    own = {ptr, bytes, static_cast<unsigned char>(random_.below(256))};
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
  Seeded random_;
  Exchange::Object own_[kOwn];
};

TEST_CASE("model: threads that exchange objects find each one's bytes as they were left",
          "[I7][I8][I10]") {
  for (const std::uint64_t seed : seeds(3 * test::kRounds)) {
    INFO("MODEL_SEED=" << seed);
    Seeded random(seed);
    FakeOs fake(test::choose_page_bytes(random), test::choose_layout(random));
    TestHeap heap(fake.os(), test::choose_options(random));
    if (random.below(2) == 0) fake.fail_one_in(20, seed);
    Exchange exchange;
    const std::size_t threads = 2 + random.below(3);
    std::atomic<std::size_t> failed{0};
    for (int generation = 0; generation < 3; ++generation) {
      const std::uint64_t base = random.below(SIZE_MAX);
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
      live += test::counted_bytes(object.ptr, heap->usable_size(object.ptr));
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
