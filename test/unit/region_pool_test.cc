#include "core/region_pool.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <thread>
#include <vector>

#include "core/stats.h"
#include "test/unit/support.h"

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::check_fails;
using test::death;
using test::ending_of;
using test::FakeOs;
using test::hex;
using test::OsCall;
using test::TestHeap;

#if defined(TEST_ASAN)
constexpr bool kHasRedZones = true;
#else
constexpr bool kHasRedZones = false;
#endif

struct Fixture {
  explicit Fixture(const Options& options = {}) : heap(fake.os(), options) {}
  ~Fixture() {
    heap->check();
    heap->check_caches();
  }

  RegionPool* create(std::size_t bytes = 0) { return RegionPool::create(*heap, bytes); }
  Snapshot snapshot() {
    Snapshot s;
    Snapshot::take(*heap, s);
    return s;
  }
  std::size_t live() { return snapshot().live; }

  FakeOs fake;
  TestHeap heap;
};

std::uintptr_t address(const void* ptr) { return reinterpret_cast<std::uintptr_t>(ptr); }

TEST_CASE("region pool: its first chunk, in which it lies, is freed last") {
  const std::size_t bytes = GENERATE(std::size_t{0}, 4 * kMaxSmall);
  CAPTURE(bytes);
  Options options;
  options.free_bound = kPageBytes;  // what is freed reads as zeros at once
  Fixture f(options);
  RegionPool* const pool = f.create(bytes);
  std::size_t taken = 0;
  for (; taken < bytes + 1024 * 1024; taken += 1000) REQUIRE(pool->allocate(1000) != nullptr);
  REQUIRE(f.live() >= taken);
  pool->destroy();
  CHECK(f.live() == 0);
}

// --- Small blocks --------------------------------------------------------------------------------

TEST_CASE("region pool: blocks of all sizes are aligned, apart, and stay as they are") {
  Fixture f;
  RegionPool* const pool = f.create();
  std::vector<std::pair<char*, std::size_t>> blocks;
  for (std::size_t bytes = 0; bytes < kMaxPoolSmall + 100; bytes += bytes < 300 ? 1 : 37) {
    char* const block = static_cast<char*>(pool->allocate(bytes));
    REQUIRE(address(block) != 0);
    REQUIRE(address(block) % kMinAlign == 0);
    memset(block, static_cast<int>(bytes % 251), bytes);
    blocks.emplace_back(block, bytes);
    pool->check();
  }
  for (const auto& [block, bytes] : blocks) {
    REQUIRE(all_bytes_are(block, bytes, static_cast<unsigned char>(bytes % 251)));
  }
  std::sort(blocks.begin(), blocks.end());
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    REQUIRE(address(blocks[i - 1].first) + std::max(blocks[i - 1].second, std::size_t{1}) <=
            address(blocks[i].first));
  }
  pool->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: neighbours lie as close as alignment allows") {
  Fixture f;
  RegionPool* const pool = f.create(8192);
  const std::uintptr_t first = address(pool->allocate(0));
  const std::size_t gap = kHasRedZones ? 16 : 0;
  CHECK(address(pool->allocate(1)) == first + 16 + gap);
  CHECK(address(pool->allocate(16)) == first + 2 * (16 + gap));
  CHECK(address(pool->allocate(17)) == first + 3 * (16 + gap));
  CHECK(address(pool->allocate(100)) == first + 3 * (16 + gap) + 32 + gap);
  pool->destroy();
}

TEST_CASE("region pool: a size beyond all bounds gives null") {
  Fixture f;
  RegionPool* const pool = f.create();
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - 14, SIZE_MAX - 15, SIZE_MAX - 16,
                                  SIZE_MAX / 2, SIZE_MAX / 2 + 1, SIZE_MAX / 2 - 15}) {
    CAPTURE(bytes);
    CHECK(pool->allocate(bytes) == nullptr);
    CHECK(pool->allocate_zeroed(bytes) == nullptr);
    CHECK(pool->allocate_aligned(bytes, 64) == nullptr);
    CHECK(f.create(bytes) == nullptr);
  }
  pool->check();
  pool->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: what an alignment needs counts") {
  Fixture f;
  RegionPool* const pool = f.create();
  for (std::size_t alignment = 1; alignment <= 1 << 20; alignment *= 2) {
    for (const std::size_t bytes : {0UL, 1UL, 100UL, 4000UL, 4096UL, 5000UL}) {
      CAPTURE(alignment, bytes);
      const std::size_t large = pool->stats().large_count;
      char* const block = static_cast<char*>(pool->allocate_aligned(bytes, alignment));
      REQUIRE(address(block) != 0);
      CHECK(address(block) % alignment == 0);
      memset(block, 1, bytes);
      const bool is_large =
          bytes > kMaxPoolSmall || (alignment > 16 && bytes + alignment - 16 > kMaxPoolSmall);
      CHECK((pool->stats().large_count == large + 1) == is_large);
      pool->check();
    }
  }
  for (std::size_t alignment = std::size_t{1} << 46; alignment != 0; alignment *= 2) {
    CHECK(pool->allocate_aligned(1, alignment) == nullptr);
    CHECK(pool->allocate_aligned(5000, alignment) == nullptr);
  }
  pool->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: an aligned block wastes what lies before it and no more") {
  Fixture f;
  RegionPool* const pool = f.create(16384);
  const std::uintptr_t block = address(pool->allocate_aligned(10, 1024));
  CHECK(address(pool->allocate(10)) == block + 16 + (kHasRedZones ? 16 : 0));
  pool->destroy();
}

TEST_CASE("region pool: zeroed blocks are zero in memory that was used before") {
  Fixture f;
  RegionPool* const pool = f.create(4096);
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t bytes : {0UL, 1UL, 100UL, 3000UL, 4096UL, 4097UL, 100000UL, 300000UL}) {
      void* const block = pool->allocate_zeroed(bytes);
      REQUIRE(block != nullptr);
      CHECK(all_zero(block, bytes));
      memset(block, 0xff, bytes);
    }
    pool->reset();
  }
  pool->destroy();
}

// --- Chunks --------------------------------------------------------------------------------------

TEST_CASE("region pool: chunks double up to a bound, and the first is as long as asked for") {
  Fixture f;
  for (const std::size_t first : {0UL, 1UL, 1024UL, 1025UL, 5000UL, 65536UL, 100000UL, 1UL << 20}) {
    CAPTURE(first);
    RegionPool* const pool = f.create(first);
    std::size_t last = pool->stats().chunk_bytes;
    CHECK(last >= std::max(first, kMinPoolChunkBytes));
    CHECK(last <= std::max(first, kMinPoolChunkBytes) * 9 / 8);
    for (std::size_t chunks = 2; chunks < 12; ++chunks) {
      const std::size_t before = pool->stats().chunk_bytes;
      while (pool->stats().chunks < chunks) REQUIRE(pool->allocate(100) != nullptr);
      const std::size_t added = pool->stats().chunk_bytes - before;
      CHECK(added == std::min(2 * last, kMaxPoolChunkBytes));
      last = added;
    }
    pool->check();
    pool->destroy();
  }
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: the largest small block fits where the next chunk would be shorter") {
  Fixture f;
  RegionPool* const pool = f.create(1024);
  CHECK(pool->allocate(kMaxPoolSmall) != nullptr);
  CHECK(pool->stats().chunks == 2);
  CHECK(pool->stats().large_count == 0);
  pool->destroy();
}

TEST_CASE("region pool: all of a chunk is used") {
  Fixture f;
  RegionPool* const pool = f.create(8192);
  const RegionPoolStats fresh = pool->stats();
  for (std::size_t left = fresh.chunk_bytes - fresh.used_bytes; left != 0;) {
    const std::size_t gap = kHasRedZones ? 16 : 0;
    const std::size_t bytes = std::min(left - gap, std::size_t{1008});
    REQUIRE(pool->allocate(bytes) != nullptr);
    left -= align_up(bytes, 16) + gap;
  }
  const RegionPoolStats full = pool->stats();
  CHECK(full.chunks == 1);
  CHECK(full.used_bytes == full.chunk_bytes);
  CHECK(pool->allocate(1) != nullptr);
  CHECK(pool->stats().chunks == 2);
  pool->destroy();
}

// Fills chunk after chunk with blocks of 4,000 bytes, until there are so many.
void fill_chunks(RegionPool* pool, std::size_t chunks) {
  while (pool->stats().chunks < chunks) REQUIRE(pool->allocate(4000) != nullptr);
}

TEST_CASE("region pool: the rest of a chunk serves until it has failed often enough") {
  Fixture f;
  for (const bool is_passed_over : {false, true}) {
    CAPTURE(is_passed_over);
    RegionPool* const pool = f.create(4096);
    const char* const end = reinterpret_cast<char*>(pool) + 4096;
    REQUIRE(pool->allocate(3000) != nullptr);
    // The first chunk fails once for each new one.
    fill_chunks(pool, kPoolChunkFailures + (is_passed_over ? 1 : 0));
    pool->check();
    bool is_used = false;
    while (pool->stats().chunks == kPoolChunkFailures + (is_passed_over ? 1 : 0)) {
      const char* const block = static_cast<char*>(pool->allocate(200));
      if (block > reinterpret_cast<char*>(pool) && block < end) is_used = true;
    }
    CHECK(is_used != is_passed_over);
    pool->check();
    // A reset gives it a new chance.
    pool->reset();
    pool->check();
    CHECK(pool->allocate(200) < end);
    pool->destroy();
  }
  CHECK(f.live() == 0);
}

// --- Reset and destroy ---------------------------------------------------------------------------

TEST_CASE("region pool: a reset keeps the first chunks up to a bound and frees the rest") {
  Fixture f;
  RegionPool* const pool = f.create(8192);
  const void* const first = pool->allocate(50);
  for (int round = 0; round < 3; ++round) {
    while (pool->stats().chunks < 7) REQUIRE(pool->allocate(500) != nullptr);
    REQUIRE(pool->allocate(300000) != nullptr);
    pool->reset();
    pool->check();
    const RegionPoolStats s = pool->stats();
    CHECK(s.chunks == 3);  // 8, 16 and 32 KiB; the next one has 64
    CHECK(s.chunk_bytes == 56 * 1024);
    CHECK(s.large_count == 0);
    CHECK(s.large_bytes == 0);
    CHECK(f.live() == s.chunk_bytes);
    CHECK(pool->allocate(50) == first);
    // The next chunk goes on from there.
    while (pool->stats().chunks == 3) REQUIRE(pool->allocate(500) != nullptr);
    CHECK(pool->stats().chunk_bytes == 120 * 1024);
  }
  pool->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: a first chunk beyond the bound is kept") {
  Fixture f;
  RegionPool* const pool = f.create(1 << 20);
  while (pool->stats().chunks < 3) REQUIRE(pool->allocate(4000) != nullptr);
  pool->reset();
  CHECK(pool->stats().chunks == 1);
  CHECK(pool->stats().chunk_bytes == 1 << 20);
  pool->destroy();
  CHECK(f.live() == 0);
}

struct Note {
  std::vector<int>* log;
  int number;
  RegionPool* pool = nullptr;
};

void take_note(void* argument) {
  const Note* const note = static_cast<Note*>(argument);
  note->log->push_back(note->number);
}

TEST_CASE("region pool: cleanups run in reverse order, once, before memory is freed") {
  Fixture f;
  RegionPool* const pool = f.create();
  std::vector<int> log;
  for (int round = 0; round < 3; ++round) {
    log.clear();
    for (int i = 0; i < 200; ++i) {
      Note* const note = new (pool->allocate(i % 2 == 0 ? sizeof(Note) : 5000)) Note{&log, i};
      REQUIRE(pool->add_cleanup(take_note, note));
    }
    round < 2 ? pool->reset() : pool->destroy();
    REQUIRE(log.size() == 200);
    for (int i = 0; i < 200; ++i) REQUIRE(log[static_cast<std::size_t>(i)] == 199 - i);
  }
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: a cleanup may use its pool, and what it adds is run") {
  Fixture f;
  for (const bool is_destroyed : {false, true}) {
    RegionPool* const pool = f.create();
    std::vector<int> log;
    Note last{&log, 1};
    Note first{&log, 2, pool};
    struct Both {
      Note* first;
      Note* last;
    } both{&first, &last};
    REQUIRE(pool->add_cleanup(
        [](void* argument) {
          const Both* const notes = static_cast<Both*>(argument);
          take_note(notes->first);
          RegionPool* const own = notes->first->pool;
          memset(own->allocate(100), 1, 100);
          void* const large = own->allocate(100000);
          memset(own->allocate(10000), 1, 10000);
          CHECK(own->free_large(large));
          CHECK(own->add_cleanup(take_note, notes->last));
          own->check();
        },
        &both));
    is_destroyed ? pool->destroy() : pool->reset();
    CHECK(log == std::vector<int>{2, 1});
    if (is_destroyed) continue;
    pool->check();
    CHECK(pool->stats().large_count == 0);
    pool->reset();
    CHECK(log.size() == 2);
    pool->destroy();
  }
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: a cleanup may not reset or destroy its pool") {
  Fixture f;
  RegionPool* const pool = f.create();
  for (const bool is_destroyed : {false, true}) {
    const std::string ending = ending_of([&] {
      pool->add_cleanup([](void* p) { static_cast<RegionPool*>(p)->reset(); }, pool);
      is_destroyed ? pool->destroy() : pool->reset();
    });
    CHECK(ending == death("minitc_pool_reset(" + hex(pool) +
                          "): called by a cleanup function of the same pool"));
  }
  CHECK(ending_of([&] {
          pool->add_cleanup([](void* p) { static_cast<RegionPool*>(p)->destroy(); }, pool);
          pool->reset();
        }) == death("minitc_pool_destroy(" + hex(pool) +
                    "): called by a cleanup function of the same pool"));
  pool->destroy();
}

// --- Large blocks --------------------------------------------------------------------------------

TEST_CASE("region pool: what is larger than the bound is an object of the heap") {
  Fixture f;
  RegionPool* const pool = f.create();
  REQUIRE(pool->allocate(kMaxPoolSmall) != nullptr);
  CHECK(pool->stats().large_count == 0);
  void* const large = pool->allocate(kMaxPoolSmall + 1);
  CHECK(pool->stats().large_count == 1);
  CHECK(pool->stats().large_bytes == kMaxPoolSmall + 1);
  CHECK(f.heap->usable_size(large) == kSizeClasses[class_of(kMaxPoolSmall + 1)].bytes);
  CHECK(pool->free_large(large));
  CHECK(pool->stats().large_count == 0);
  CHECK(pool->stats().large_bytes == 0);
  pool->destroy();
}

TEST_CASE("region pool: only its own live large blocks can be freed early") {
  Fixture f;
  RegionPool* const pool = f.create();
  RegionPool* const other = f.create();
  char* const small = static_cast<char*>(pool->allocate(100));
  char* const large = static_cast<char*>(pool->allocate(10000));
  char* const freed = static_cast<char*>(pool->allocate(20000));
  void* const others = other->allocate(10000);
  void* const heaps = f.heap->allocate(10000);
  int on_stack = 0;
  CHECK(pool->free_large(freed));
  for (void* const ptr : {static_cast<void*>(nullptr), static_cast<void*>(small),
                          static_cast<void*>(large + 1), static_cast<void*>(large + 16),
                          static_cast<void*>(freed), others, heaps, static_cast<void*>(pool),
                          static_cast<void*>(&on_stack), reinterpret_cast<void*>(UINTPTR_MAX)}) {
    CHECK_FALSE(pool->free_large(ptr));
    pool->check();
  }
  CHECK(pool->stats().large_count == 1);
  CHECK(other->stats().large_count == 1);
  CHECK(pool->free_large(large));
  CHECK_FALSE(pool->free_large(large));
  f.heap->deallocate(heaps);
  pool->destroy();
  other->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: thousands of large blocks are freed in any order") {
  Fixture f;
  for (const int order : {0, 1, 2}) {
    RegionPool* const pool = f.create();
    test::Random random(7);
    std::vector<char*> blocks;
    for (int i = 0; i < 2000; ++i) {
      blocks.push_back(static_cast<char*>(pool->allocate(5000 + random.below(20000))));
      memset(blocks.back(), 1, 5000);
    }
    if (order == 1) std::reverse(blocks.begin(), blocks.end());
    while (!blocks.empty()) {
      if (order == 2) std::swap(blocks[random.below(blocks.size())], blocks.back());
      REQUIRE(pool->free_large(blocks.back()));
      REQUIRE_FALSE(pool->free_large(blocks.back()));
      blocks.pop_back();
      if (blocks.size() % 100 == 0) pool->check();
    }
    CHECK(pool->stats().large_count == 0);
    CHECK(f.live() == pool->stats().chunk_bytes);
    pool->destroy();
  }
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: large blocks that come and go early do not make the pool grow") {
  Fixture f;
  RegionPool* const pool = f.create();
  test::Random random(3);
  std::vector<void*> blocks(50);
  for (void*& block : blocks) block = pool->allocate(5000);
  std::size_t used = 0;
  for (int i = 0; i < 20000; ++i) {
    void*& block = blocks[random.below(blocks.size())];
    REQUIRE(pool->free_large(block));
    block = pool->allocate(5000 + random.below(30000));
    if (i == 10000) used = pool->stats().used_bytes;
  }
  pool->check();
  CHECK(pool->stats().large_count == 50);
  CHECK(pool->stats().used_bytes <= used + used / 4);
  CHECK(pool->stats().used_bytes < 50 * 1024);
  pool->destroy();
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: a large block freed behind its back is named") {
  Options options;
  options.check_free = 1;
  Fixture f(options);
  RegionPool* const pool = f.create();
  void* const large = pool->allocate(10000);
  const std::string message = "free(" + hex(large) + "): double free: the object is already free";
  CHECK(ending_of([&] {
          f.heap->deallocate(large);
          pool->reset();
        }) == death(message));
  CHECK(ending_of([&] {
          f.heap->deallocate(large);
          pool->free_large(large);
        }) == death(message));
  pool->destroy();
}

TEST_CASE("region pool: what is behind its back is said once where bad pointers are ignored") {
  Options options;
  options.check_free = 1;
  options.on_bad_free = Options::kIgnore;
  Fixture f(options);
  RegionPool* const pool = f.create();
  void* const neighbour = f.heap->allocate(10000);  // so that the pages stay in use
  void* first = nullptr;
  const std::string said = test::stderr_of([&] {
    for (int i = 0; i < 10; ++i) {
      void* const large = pool->allocate(10000);
      if (first == nullptr) first = large;
      f.heap->deallocate(large);
      pool->reset();
    }
  });
  CHECK(said == "libminitc: free(" + hex(first) + "): double free: the object is already free\n");
  f.heap->deallocate(neighbour);
  pool->destroy();
}

// --- Out of memory -------------------------------------------------------------------------------

// Everything that a pool can do, as far as memory is had. True if all was.
bool use_pool(Fixture& f) {
  RegionPool* const pool = f.create(2000);
  if (pool == nullptr) return false;
  int calls = 0;
  int wanted = 0;
  bool all = true;
  std::vector<char*> blocks;
  for (int i = 0; i < 60; ++i) {
    for (const std::size_t bytes : {100UL, 4000UL, 9000UL, 70000UL, 300000UL}) {
      char* const block = static_cast<char*>(
          i % 3 == 0   ? pool->allocate(bytes)
          : i % 3 == 1 ? pool->allocate_zeroed(bytes)
                       : pool->allocate_aligned(bytes, std::size_t{1} << i % 16));
      if (block == nullptr) {
        all = false;
      } else {
        memset(block, 1, bytes);
        blocks.push_back(block);
      }
    }
    if (pool->add_cleanup([](void* n) { ++*static_cast<int*>(n); }, &calls)) {
      ++wanted;
    } else {
      all = false;
    }
  }
  pool->check();
  for (std::size_t i = 0; i < blocks.size(); i += 2) pool->free_large(blocks[i]);
  pool->check();
  pool->reset();
  CHECK(calls == wanted);
  CHECK(f.live() == pool->stats().chunk_bytes);
  pool->destroy();
  return all;
}

TEST_CASE("region pool: wherever memory is refused nothing is lost") {
  for (std::size_t nth = 1;; ++nth) {
    CAPTURE(nth);
    Fixture f;
    f.fake.fail_any(nth, test::kAlways);
    const bool all = use_pool(f);
    f.fake.stop_failing();
    REQUIRE(f.live() == 0);
    REQUIRE(f.snapshot().pools == 0);
    REQUIRE(f.snapshot().pool_bytes == 0);
    REQUIRE(use_pool(f));  // later calls work
    REQUIRE(f.live() == 0);
    if (all) break;
  }
}

TEST_CASE("region pool: a large block without memory for its node is given back") {
  Fixture f;
  RegionPool* const pool = f.create(65536);
  while (pool->stats().used_bytes + 48 <= 65536) pool->allocate(1);
  void* const neighbour = f.heap->allocate(5000);  // its span has room for more
  f.fake.fail(OsCall::kReserve, 1, test::kAlways);
  std::vector<void*> others;
  while (void* const object = f.heap->allocate(65536)) others.push_back(object);
  const std::size_t live = f.live();
  CHECK(pool->allocate(5000) == nullptr);
  CHECK(pool->allocate_zeroed(5000) == nullptr);
  CHECK(pool->stats().large_count == 0);
  CHECK(f.live() == live);
  void* const object = f.heap->allocate(5000);  // what was missing was the node
  CHECK(object != nullptr);
  f.fake.stop_failing();
  CHECK(pool->allocate(5000) != nullptr);
  pool->check();
  pool->destroy();
  f.heap->deallocate(object);
  f.heap->deallocate(neighbour);
  for (void* const other : others) f.heap->deallocate(other);
  CHECK(f.live() == 0);
}

TEST_CASE("region pool: inside a critical section the heap is left alone") {
  Fixture f;
  RegionPool* const pool = f.create();
  void* const large = pool->allocate(300000);
  REQUIRE(pool->allocate(10000) != nullptr);
  const std::size_t live = f.live();
  t_ranks_held = 1;
  CHECK(pool->allocate(300000) == nullptr);
  CHECK(pool->allocate_zeroed(300000) == nullptr);
  CHECK(pool->allocate_aligned(300000, 64) == nullptr);
  CHECK(pool->free_large(large));  // lost
  t_ranks_held = 0;
  CHECK(f.live() == live);
  pool->check();
  pool->destroy();
  f.heap->deallocate(large);
  CHECK(f.live() == 0);
}

// --- Threads -------------------------------------------------------------------------------------

TEST_CASE("region pool: two threads at a time are found in debug builds") {
  Fixture f;
  RegionPool* const pool = f.create();
  CHECK(
      ending_of([&] {
        // The cleanup runs in one thread until another has used the pool.
        pool->add_cleanup(
            [](void* p) { std::thread([p] { static_cast<RegionPool*>(p)->allocate(1); }).join(); },
            pool);
        pool->reset();
      }) == death("pool " + hex(pool) + ": used by two threads at a time"));
  pool->destroy();
}

TEST_CASE("region pool: a pool may go from thread to thread, and each may have its own") {
  Fixture f;
  RegionPool* const passed = f.create();
  for (int i = 0; i < 3; ++i) {
    std::thread([&] {
      for (int k = 0; k < 100; ++k) {
        memset(passed->allocate(500), 1, 500);
        memset(passed->allocate(5000), 1, 5000);
      }
      if (i == 1) passed->reset();
    }).join();
  }
  test::in_threads(4, [&](std::size_t number) {
    RegionPool* const pool = f.create(1000 * number);
    for (std::size_t round = 0; round < 100 * test::kRounds; ++round) {
      for (std::size_t i = 0; i < 40; ++i) memset(pool->allocate(i * 10), 1, i * 10);
      memset(pool->allocate(10000), 1, 10000);
      void* const early = pool->allocate(100000);
      if (round % 2 == 0) pool->free_large(early);
      pool->reset();
    }
    pool->destroy();
  });
  passed->check();
  passed->destroy();
  CHECK(f.live() == 0);
  CHECK(f.snapshot().pools == 0);
  CHECK(f.snapshot().pool_bytes == 0);
}

// --- Figures -------------------------------------------------------------------------------------

TEST_CASE("region pool: the heap knows how many pools there are and what they held of late") {
  Fixture f;
  RegionPool* const pool = f.create(4096);
  RegionPool* const other = f.create(8192);
  const auto totals = [&] { return f.snapshot().pool_bytes; };
  CHECK(f.snapshot().pools == 2);
  CHECK(totals() == 4096 + 8192);
  void* const large = pool->allocate(10000);
  CHECK(totals() == 4096 + 8192 + 10000);
  CHECK(pool->free_large(large));
  REQUIRE(pool->allocate(6000) != nullptr);
  CHECK(totals() == 4096 + 8192 + 10000);
  pool->reset();
  CHECK(totals() == 4096 + 8192 + 10000);  // it held so much before the reset
  REQUIRE(pool->allocate(7000) != nullptr);
  CHECK(totals() == 4096 + 8192 + 10000);
  for (std::uint32_t i = 1; i < kPoolPeakResets; ++i) pool->reset();
  CHECK(totals() == 4096 + 8192 + 10000);  // still: one of the resets was of that
  REQUIRE(pool->allocate(7000) != nullptr);
  for (std::uint32_t i = 0; i < kPoolPeakResets; ++i) pool->reset();
  CHECK(totals() == 4096 + 8192 + 7000);
  for (std::uint32_t i = 0; i < kPoolPeakResets; ++i) pool->reset();
  CHECK(totals() == 4096 + 8192);
  pool->destroy();
  CHECK(f.snapshot().pools == 1);
  CHECK(totals() == 8192);
  other->destroy();
  CHECK(f.snapshot().pools == 0);
  CHECK(totals() == 0);
}

// --- All of it -----------------------------------------------------------------------------------

struct Block {
  unsigned char* start;
  std::size_t bytes;
  unsigned char value;
  bool is_large;
};

TEST_CASE("region pool: any mixture of calls keeps what is in the blocks") {
  Fixture f;
  for (std::size_t seed = 1; seed <= 10 * test::kRounds; ++seed) {
    CAPTURE(seed);
    test::Random random(seed);
    RegionPool* const pool = f.create(random.below(10000));
    std::vector<Block> blocks;
    std::size_t wrong = 0;
    const auto verify = [&](const Block& b) {
      if (!all_bytes_are(b.start, b.bytes, b.value)) ++wrong;
    };
    for (int i = 0; i < 3000; ++i) {
      const std::size_t kind = random.below(200);
      if (kind == 0) {
        for (const Block& b : blocks) verify(b);
        blocks.clear();
        pool->check();
        pool->reset();
        pool->check();
      } else if (kind < 20 && !blocks.empty()) {
        const std::size_t at = random.below(blocks.size());
        verify(blocks[at]);
        if (pool->free_large(blocks[at].start) != blocks[at].is_large) ++wrong;
        if (blocks[at].is_large) blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(at));
      } else {
        const std::size_t bytes = random.below(std::size_t{1} << random.below(16)) + 1;
        const std::size_t alignment = std::size_t{1} << (kind < 50 ? random.below(14) : 0);
        void* const block = kind < 50    ? pool->allocate_aligned(bytes, alignment)
                            : kind < 100 ? pool->allocate_zeroed(bytes)
                                         : pool->allocate(bytes);
        if (block == nullptr || address(block) % alignment != 0) ++wrong;
        if (kind >= 50 && kind < 100 && !all_zero(block, bytes)) ++wrong;
        const unsigned char value = static_cast<unsigned char>(random.below(256));
        memset(block, value, bytes);
        const bool is_large =
            bytes > kMaxPoolSmall || (alignment > 16 && bytes + alignment - 16 > kMaxPoolSmall);
        blocks.push_back({static_cast<unsigned char*>(block), bytes, value, is_large});
      }
    }
    for (const Block& b : blocks) verify(b);
    CHECK(wrong == 0);
    CHECK(pool->stats().large_count ==
          static_cast<std::size_t>(std::count_if(blocks.begin(), blocks.end(),
                                                 [](const Block& b) { return b.is_large; })));
    pool->destroy();
  }
  CHECK(f.live() == 0);
}

#if defined(TEST_ASAN)
TEST_CASE("region pool: AddressSanitizer finds overruns and uses after a reset") {
  Fixture f;
  RegionPool* const pool = f.create();
  for (const std::size_t bytes : {1UL, 8UL, 13UL, 16UL, 100UL, 4096UL}) {
    CAPTURE(bytes);
    char* const block = static_cast<char*>(pool->allocate(bytes));
    REQUIRE(pool->allocate(100) != nullptr);
    char* volatile end = block + bytes;
    end[-1] = 1;
    CHECK(ending_of([&] { *end = 1; }).find("use-after-poison") != std::string::npos);
  }
  char* volatile stale = static_cast<char*>(pool->allocate(100));
  *stale = 1;
  pool->reset();
  CHECK(ending_of([&] { *stale = 1; }).find("use-after-poison") != std::string::npos);
  pool->destroy();
}
#endif

}  // namespace
}  // namespace minitc
