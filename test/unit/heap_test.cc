#include "core/heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "core/stats.h"
#include "test/unit/support.h"

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::death;
using test::ending_of;
using test::FakeOs;
using test::hex;
using test::OsCall;
using test::TestHeap;

// For comparisons: Catch would take a char* for a string and keep the text of megabytes of objects.
const void* address(const void* ptr) { return ptr; }

// A heap on a fake OS.
struct Fixture {
  explicit Fixture(const Options& options = {}, std::size_t page_bytes = 4096,
                   FakeOs::Layout layout = FakeOs::Layout::kRising)
      : fake(page_bytes, layout), heap(fake.os(), options) {}

  char* allocate(std::size_t bytes) { return static_cast<char*>(heap->allocate(bytes)); }
  char* filled(std::size_t bytes, unsigned char value) {
    char* const object = allocate(bytes);
    if (object != nullptr) memset(object, value, bytes);
    return object;
  }
  Snapshot snapshot() {
    Snapshot s;
    Snapshot::take(*heap, s);
    return s;
  }
  std::size_t live() { return snapshot().live; }
  void check() {
    heap->check();
    heap->check_caches();
  }

  FakeOs fake;
  TestHeap heap;
};

Options check_free() {
  Options options;
  options.check_free = 1;
  return options;
}

// The sizes at which something changes.
std::vector<std::size_t> interesting_sizes() {
  std::vector<std::size_t> sizes;
  for (const SizeClass& c : kSizeClasses) {
    if (c.bytes == 0) continue;
    for (const std::size_t bytes : {c.bytes - 1UL, c.bytes + 0UL, c.bytes + 1UL}) {
      sizes.push_back(bytes);
    }
  }
  for (const std::size_t bytes : {kMinColoredBytes, kMoveBytes, 3 * kMoveBytes}) {
    sizes.insert(sizes.end(), {bytes - kPageBytes + kColorBytes, bytes - 1, bytes, bytes + 1});
  }
  return sizes;
}

// --- Before there is a heap ---------------------------------------------------------------------

TEST_CASE("heap: until it is open the fast paths leave everything to the slow ones") {
  const auto heap = std::make_unique<Heap>();
  t_cache = &g_no_cache;
  for (const std::size_t bytes : {0UL, 1UL, 100UL, kMaxSmall, kMaxSmall + 1, SIZE_MAX}) {
    int asked = 0;
    CHECK(heap->allocate(bytes, [&](std::size_t n) -> void* {
      CHECK(n == bytes);
      return &++asked;
    }) == &asked);
    CHECK(asked == 1);
  }
  int on_stack = 0;
  for (void* const ptr : {static_cast<void*>(nullptr), static_cast<void*>(&on_stack),
                          reinterpret_cast<void*>(UINTPTR_MAX)}) {
    int asked = 0;
    heap->deallocate(ptr, [&](void* p) {
      CHECK(p == ptr);
      ++asked;
    });
    CHECK(asked == 1);
  }
}

// --- Allocate and free --------------------------------------------------------------------------

TEST_CASE("heap: objects of every size are large enough, aligned, apart and freed again") {
  Fixture f;
  std::vector<std::pair<char*, std::size_t>> objects;
  for (const std::size_t bytes : interesting_sizes()) {
    CAPTURE(bytes);
    for (int i = 0; i < 3; ++i) {
      char* const object = f.allocate(bytes);
      REQUIRE(address(object) != nullptr);
      const std::size_t usable = f.heap->usable_size(object);
      CHECK(usable >= bytes);
      CHECK(usable <= std::max(bytes + 15, bytes + bytes / 8));
      CHECK(reinterpret_cast<std::uintptr_t>(object) % (bytes < 9 ? 8 : 16) == 0);
      memset(object, 1, usable);
      objects.emplace_back(object, usable);
    }
  }
  std::sort(objects.begin(), objects.end());
  for (std::size_t i = 1; i < objects.size(); ++i) {
    REQUIRE(address(objects[i - 1].first + objects[i - 1].second) <= address(objects[i].first));
  }
  f.check();
  for (const auto& [object, usable] : objects) f.heap->deallocate(object);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: a request of nothing gives an object of its own") {
  Fixture f;
  std::set<void*> objects;
  for (int i = 0; i < 50; ++i) {
    objects.insert(f.heap->allocate(0));
    objects.insert(f.heap->allocate_zeroed(0));
    objects.insert(f.heap->allocate_aligned(0, 64));
    objects.insert(f.heap->allocate_aligned(0, 4 * kPageBytes));
  }
  CHECK(objects.size() == 200);
  CHECK_FALSE(objects.contains(nullptr));
  for (void* const object : objects) f.heap->deallocate(object);
  CHECK(f.live() == 0);
}

TEST_CASE("heap: requests beyond PTRDIFF_MAX and beyond all memory give null and lose nothing") {
  Fixture f;
  char* const object = f.filled(1000, 1);
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - kPageBytes, std::size_t{PTRDIFF_MAX} + 1,
                                  std::size_t{PTRDIFF_MAX}, std::size_t{1} << 50}) {
    CAPTURE(bytes);
    CHECK(f.allocate(bytes) == nullptr);
    CHECK(f.heap->allocate_zeroed(bytes) == nullptr);
    CHECK(f.heap->allocate_aligned(bytes, 16) == nullptr);
    CHECK(f.heap->allocate_aligned(bytes, std::size_t{1} << 30) == nullptr);
    CHECK(f.heap->resize(object, bytes) == nullptr);
  }
  for (unsigned bit = 45; bit < 64; ++bit) {
    CHECK(f.heap->allocate_aligned(1, std::size_t{1} << bit) == nullptr);
    CHECK(f.heap->allocate_aligned(std::size_t{PTRDIFF_MAX}, std::size_t{1} << bit) == nullptr);
  }
  CHECK(all_bytes_are(object, 1000, 1));
  f.heap->deallocate(object);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: aligned objects are aligned, large enough and freed like others") {
  Fixture f;
  std::vector<char*> objects;
  for (std::size_t alignment = 1; alignment <= std::size_t{4} << 20; alignment *= 2) {
    for (const std::size_t bytes : {1UL, 8UL, 100UL, 4096UL, 5000UL, kMaxSmall, kMaxSmall + 1}) {
      CAPTURE(alignment, bytes);
      char* const object = static_cast<char*>(f.heap->allocate_aligned(bytes, alignment));
      REQUIRE(address(object) != nullptr);
      CHECK(reinterpret_cast<std::uintptr_t>(object) % alignment == 0);
      CHECK(f.heap->usable_size(object) >= bytes);
      memset(object, 2, f.heap->usable_size(object));
      objects.push_back(object);
    }
  }
  f.check();
  for (char* const object : objects) f.heap->deallocate(object);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: zeroed objects are zero, also where others were", "[I6]") {
  Fixture f;
  std::vector<char*> objects;
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t bytes : interesting_sizes()) {
      char* const object = static_cast<char*>(f.heap->allocate_zeroed(bytes));
      REQUIRE(address(object) != nullptr);
      CAPTURE(bytes, round);
      REQUIRE(all_zero(object, bytes));
      memset(object, 0xff, f.heap->usable_size(object));
      objects.push_back(object);
    }
    for (char* const object : objects) f.heap->deallocate(object);
    objects.clear();
    if (round == 1) f.heap->trim();
  }
}

// Of the pages that begin in [start, start + bytes).
std::size_t resident_pages(char* start, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(start) + bytes;
  const std::uintptr_t first = align_up(reinterpret_cast<std::uintptr_t>(start), page);
  if (first >= end) return 0;
  std::vector<unsigned char> resident((end - first + page - 1) / page);
  REQUIRE(mincore(reinterpret_cast<void*>(first), end - first, resident.data()) == 0);
  return static_cast<std::size_t>(std::count_if(
      resident.begin(), resident.end(), [](unsigned char bits) { return (bits & 1) != 0; }));
}

TEST_CASE("heap: a large zeroed object in fresh memory is not touched", "[I6]") {
  Fixture f;
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  char* const object = static_cast<char*>(f.heap->allocate_zeroed(kBytes));
  REQUIRE(address(object) != nullptr);
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  CHECK(resident_pages(object, kBytes) < kBytes / page / 4);
}

TEST_CASE("heap: a zeroed object of many pages that nobody has had is not touched", "[I6]") {
  Options options;
  options.check_free = GENERATE(std::size_t{0}, std::size_t{1});  // 1: no thread caches
  Fixture f(options);
  std::vector<char*> objects;
  const auto allocate_zeroed = [&](std::size_t bytes) {
    objects.push_back(static_cast<char*>(f.heap->allocate_zeroed(bytes)));
    REQUIRE(all_zero(objects.back(), bytes));
    return objects.back();
  };
  for (unsigned cls = class_of(kMaxClearedBytes + 1); cls < kNumClasses; ++cls) {
    const std::size_t bytes = kSizeClasses[cls].bytes;
    CAPTURE(bytes);
    for (int i = 0; i < 6; ++i) {
      char* const object = static_cast<char*>(f.heap->allocate_zeroed(bytes));
      objects.push_back(object);
      // An assert has read the first and the last page of the span (I6).
      REQUIRE(resident_pages(object, bytes) <= 2);
      REQUIRE(all_zero(object, bytes));
      memset(object, 1, bytes);
    }
    // Whether it comes out of the thread's cache or its span: where it was, or was not.
    for (int i = 0; i < 2; ++i) {
      for (int k = 0; k < 3; ++k) {
        f.heap->deallocate(objects.back());
        objects.pop_back();
      }
      if (i == 1) f.heap->trim();
      for (int k = 0; k < 5; ++k) memset(allocate_zeroed(bytes), 2, bytes);
    }
    // A system that refuses to take the pages of what is free has written to them.
    memset(f.allocate(bytes), 3, bytes);
    f.fake.refused_decommit_does(test::Refused::kScribble);
    f.fake.fail(OsCall::kDecommit, 1, test::kAlways);
    f.heap->trim();
    f.fake.stop_failing();
    for (int k = 0; k < 5; ++k) memset(allocate_zeroed(bytes), 4, bytes);
  }
  f.check();
}

TEST_CASE("heap: no byte of a freed object is changed, for any class and beyond") {
  Fixture f;
  for (const std::size_t bytes : interesting_sizes()) {
    CAPTURE(bytes);
    char* const keeps_span = f.allocate(bytes);
    char* const object = f.allocate(bytes);
    const std::size_t usable = f.heap->usable_size(object);
    memset(object, 0x5a, usable);
    f.heap->deallocate(object);
    REQUIRE(all_bytes_are(object, usable, 0x5a));
    f.heap->deallocate(keeps_span);
  }
}

TEST_CASE("heap: large objects begin at different lines of their pages") {
  constexpr std::size_t kBytes = 1 << 20;
  Fixture f;
  std::vector<char*> objects;
  std::vector<std::size_t> of_line(kColors);
  for (std::size_t i = 0; i < kColors; ++i) {
    objects.push_back(f.filled(kBytes, 1));
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(objects.back());
    REQUIRE(at % kColorBytes == 0);
    REQUIRE(at % kPageBytes <= kMaxColor);
    ++of_line[at % kPageBytes / kColorBytes];
  }
  CHECK(*std::max_element(of_line.begin(), of_line.end()) <= kColors / 5);
  SECTION("where one was, one like it begins at the same line") {
    f.heap->deallocate(objects[9]);
    CHECK(address(f.allocate(kBytes)) == objects[9]);
  }
  SECTION("unless they are aligned") {
    for (std::size_t alignment = 2 * kColorBytes; alignment <= 2 * kBytes; alignment *= 2) {
      void* const object = f.heap->allocate_aligned(kBytes, alignment);
      CHECK(reinterpret_cast<std::uintptr_t>(object) % alignment == 0);
      CHECK(f.heap->usable_size(object) == kBytes);
    }
  }
  SECTION("shorter ones as far as there is room in the pages that they have anyway") {
    char* const tight = f.filled(kMinColoredBytes - kPageBytes, 1);
    CHECK(f.heap->usable_size(tight) == kMinColoredBytes - kPageBytes);
    std::set<std::size_t> lines;
    for (std::size_t i = 0; i < kColors; ++i) {
      const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(
          f.filled(kMinColoredBytes - kPageBytes - 3 * kColorBytes, 1));
      lines.insert(at % kPageBytes / kColorBytes);
    }
    CHECK(lines == std::set<std::size_t>{0, 1, 2, 3});
  }
  f.check();
}

TEST_CASE("heap: what comes before a large object in its pages is none") {
  Fixture f;
  char* object = f.allocate(1 << 20);
  while (reinterpret_cast<std::uintptr_t>(object) % kPageBytes == 0) object = f.allocate(1 << 20);
  for (char* const ptr : {object - 1, object - kColorBytes}) {
    CHECK(f.heap->find(ptr).verdict == Verdict::kForeign);
    CHECK(ending_of([&] { f.heap->deallocate(ptr); }).find("foreign pointer") != std::string::npos);
  }
  CHECK(f.heap->find(object).verdict == Verdict::kLive);
  CHECK(f.heap->find(object + 1).start == reinterpret_cast<std::uintptr_t>(object));
}

// --- Resize -------------------------------------------------------------------------------------

TEST_CASE("heap: resizing keeps every usable byte, from any size to any other") {
  Fixture f;
  std::vector<std::size_t> sizes;
  const std::vector<std::size_t> all = interesting_sizes();
  for (std::size_t i = 0; i < all.size(); i += 7) sizes.push_back(all[i]);
  for (const std::size_t bytes : {kMaxSmall, kMaxSmall + 1, 2 * kMoveBytes, 5 * kMoveBytes}) {
    sizes.push_back(bytes);
  }
  std::size_t wrong = 0;
  for (const std::size_t from : sizes) {
    for (const std::size_t to : sizes) {
      char* const object = f.allocate(from);
      const std::size_t before = f.heap->usable_size(object);
      memset(object, 0x33, before);
      char* const moved = static_cast<char*>(f.heap->resize(object, to));
      const std::size_t after = moved == nullptr ? 0 : f.heap->usable_size(moved);
      if (after < to || !all_bytes_are(moved, std::min(before, after), 0x33)) ++wrong;
      if (to <= before && after > before) ++wrong;  // a shrunk object is no larger than it was
      if (moved != nullptr) f.heap->deallocate(moved);
    }
  }
  CHECK(wrong == 0);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: an object that fits and wastes little stays where it is") {
  Fixture f;
  for (const std::size_t bytes : interesting_sizes()) {
    CAPTURE(bytes);
    char* const object = f.allocate(bytes);
    const std::size_t usable = f.heap->usable_size(object);
    CHECK(f.heap->resize(object, usable) == object);
    CHECK(f.heap->resize(object, bytes) == object);
    CHECK(f.heap->resize(object, usable - usable / 4) == object);
    f.heap->deallocate(object);
  }
}

TEST_CASE("heap: an object that shrinks much gives its memory up") {
  Fixture f;
  const auto waste = [&f](std::size_t from, std::size_t to) {
    void* const object = f.heap->resize(f.allocate(from), to);
    const std::size_t usable = f.heap->usable_size(object);
    f.heap->deallocate(object);
    return usable;
  };
  CHECK(waste(kMaxSmall, 100) < 200);
  CHECK(waste(1000, 100) < 200);
  CHECK(waste(std::size_t{10} << 20, std::size_t{1} << 20) < std::size_t{2} << 20);
  CHECK(waste(std::size_t{10} << 20, 100) < 200);
}

TEST_CASE("heap: resizing to nothing frees") {
  Fixture f;
  for (const std::size_t bytes : {1UL, 100UL, kMaxSmall, kMaxSmall + 1, 10 * kMaxSmall}) {
    CHECK(f.heap->resize(f.allocate(bytes), 0) == nullptr);
    CHECK(f.live() == 0);
  }
}

TEST_CASE("heap: a large object grows in place into free pages") {
  Fixture f;
  char* const object = f.filled(300 * 1024, 7);
  CHECK(f.heap->resize(object, 400 * 1024) == address(object));
  CHECK(f.heap->usable_size(object) >= 400 * 1024);
  CHECK(all_bytes_are(object, 300 * 1024, 7));
  f.check();
}

// Three megabytes that cannot grow in place.
struct Hemmed : Fixture {
  Hemmed() {
    object = filled(kBytes, 9);
    wall = filled(kMaxSmall + 1, 8);
  }
  bool wall_stands() const { return all_bytes_are(wall, kMaxSmall + 1, 8); }

  static constexpr std::size_t kBytes = std::size_t{3} << 20;
  char* object;
  char* wall;
};

TEST_CASE("heap: a large object that cannot grow in place has its pages moved, not copied",
          "[I6]") {
  Hemmed f;
  char* const moved = static_cast<char*>(f.heap->resize(f.object, 2 * Hemmed::kBytes));
  CHECK(address(moved) != address(f.object));
  CHECK(f.fake.calls(OsCall::kMove) == 1);
  CHECK(all_bytes_are(moved, Hemmed::kBytes, 9));
  CHECK(f.wall_stands());
  // It is given some room to grow on.
  CHECK(f.heap->usable_size(moved) >= 2 * Hemmed::kBytes + Hemmed::kBytes / 8);
  f.check();
  // What it left reads as zeros and is used as such.
  char* const zeroed = static_cast<char*>(f.heap->allocate_zeroed(Hemmed::kBytes));
  CHECK(all_zero(zeroed, Hemmed::kBytes));
}

TEST_CASE("heap: a large object below the threshold is copied") {
  Fixture f;
  constexpr std::size_t kBytes = kMoveBytes - 2 * kPageBytes;
  char* const object = f.filled(kBytes, 9);
  f.filled(kMaxSmall + 1, 8);
  char* const moved = static_cast<char*>(f.heap->resize(object, 2 * kMoveBytes));
  CHECK(address(moved) != address(object));
  CHECK(f.fake.calls(OsCall::kMove) == 0);
  CHECK(all_bytes_are(moved, kBytes, 9));
}

TEST_CASE("heap: when the OS refuses to move pages they are copied") {
  Hemmed f;
  f.fake.fail(OsCall::kMove, 1);
  char* const moved = static_cast<char*>(f.heap->resize(f.object, 2 * Hemmed::kBytes));
  REQUIRE(address(moved) != nullptr);
  CHECK(f.fake.calls(OsCall::kMove) == 1);
  CHECK(all_bytes_are(moved, Hemmed::kBytes, 9));
  f.heap->deallocate(moved);
  f.heap->deallocate(f.wall);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: when a failed move loses its target the object is copied to another") {
  Hemmed f;
  f.fake.fail(OsCall::kMove, 1);
  f.fake.failed_move_is(Move::kTargetLost);
  char* const copied = static_cast<char*>(f.heap->resize(f.object, 2 * Hemmed::kBytes));
  REQUIRE(address(copied) != nullptr);
  CHECK(all_bytes_are(copied, Hemmed::kBytes, 9));
  f.check();
  CHECK(f.wall_stands());
}

TEST_CASE("heap: when there is no other either the object is as it was") {
  Hemmed f;
  f.fake.fail(OsCall::kMove, 1);
  f.fake.failed_move_is(Move::kTargetLost);
  f.fake.fail(OsCall::kReserve, 2, test::kAlways);
  const std::size_t live = f.live();
  CHECK(f.heap->resize(f.object, 2 * Hemmed::kBytes) == nullptr);
  CHECK(f.fake.calls(OsCall::kMove) == 1);
  CHECK(f.live() == live);
  CHECK(all_bytes_are(f.object, Hemmed::kBytes, 9));
  f.check();
  f.fake.stop_failing();
  char* const moved = static_cast<char*>(f.heap->resize(f.object, 2 * Hemmed::kBytes));
  REQUIRE(address(moved) != nullptr);
  CHECK(all_bytes_are(moved, Hemmed::kBytes, 9));
  CHECK(f.wall_stands());
}

TEST_CASE("heap: when a move loses its source the object has arrived") {
  Hemmed f;
  f.fake.fail(OsCall::kMove, 1);
  f.fake.failed_move_is(Move::kSourceLost);
  char* const moved = static_cast<char*>(f.heap->resize(f.object, 2 * Hemmed::kBytes));
  REQUIRE(address(moved) != nullptr);
  CHECK(all_bytes_are(moved, Hemmed::kBytes, 9));
  CHECK(f.wall_stands());
  f.heap->deallocate(moved);
  f.heap->deallocate(f.wall);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: an object whose resizing is refused is as it was") {
  Hemmed f;
  char* const small = f.filled(kMaxSmall, 6);
  const std::size_t usable = f.heap->usable_size(f.object);
  f.fake.fail_any(1, test::kAlways);
  CHECK(f.heap->resize(f.object, std::size_t{1} << 30) == nullptr);
  CHECK(f.heap->resize(small, std::size_t{1} << 30) == nullptr);
  CHECK(f.heap->usable_size(f.object) == usable);
  CHECK(all_bytes_are(f.object, Hemmed::kBytes, 9));
  CHECK(all_bytes_are(small, kMaxSmall, 6));
  CHECK(f.wall_stands());
  f.check();
}

TEST_CASE("heap: an object that shrinks stays where it is when nothing smaller is to be had") {
  for (const std::size_t bytes : {std::size_t{1} << 20, kMaxSmall}) {
    Fixture f;
    char* const object = f.filled(bytes, 6);
    f.fake.fail_any(1, test::kAlways);
    while (f.allocate(100) != nullptr) {
    }
    CHECK(f.heap->resize(object, 90) == address(object));
    CHECK(all_bytes_are(object, bytes, 6));
    f.check();
  }
}

TEST_CASE("heap: an object that cannot be cut is copied to a shorter place, not moved", "[I6]") {
  Fixture f;
  constexpr std::size_t kPages = 128;  // all of the first chunk
  constexpr std::size_t kLess = 80;
  char* const object = f.filled(kPages * kPageBytes, 1);
  // Large objects, each in a chunk of its length, until there is no metadata to describe one.
  f.fake.refuse_size(kMetadataChunkBytes);
  f.fake.refuse_above(kMaxSmall + kPageBytes);
  while (f.allocate(kMaxSmall + 1) != nullptr) {
  }
  f.fake.stop_failing();
  f.fake.fail(OsCall::kReserve, 1);  // what the cut needs; what a new place needs is to be had
  char* const copied = static_cast<char*>(f.heap->resize(object, kLess * kPageBytes));
  REQUIRE(address(copied) != address(object));
  CHECK(all_bytes_are(copied, kLess * kPageBytes, 1));
  f.check();
  // The pages behind it were never used.
  char* const behind = static_cast<char*>(f.heap->allocate_zeroed(kPages * kPageBytes));
  CHECK(all_zero(behind, kPages * kPageBytes));
}

// --- Bad pointers -------------------------------------------------------------------------------

std::string foreign_text(const std::string& call, const void* ptr) {
  return death(call + "(" + hex(ptr) +
               "): foreign pointer: not allocated by libminitc; stack, static, mapped or another "
               "allocator's memory");
}

TEST_CASE("heap: foreign pointers are told by all calls") {
  Fixture f;
  f.allocate(100);
  int on_stack = 0;
  static int in_data = 0;
  for (void* const ptr :
       {static_cast<void*>(&on_stack), static_cast<void*>(&in_data), reinterpret_cast<void*>(8),
        reinterpret_cast<void*>(std::uintptr_t{1} << 47),
        reinterpret_cast<void*>(std::uintptr_t{1} << 56), reinterpret_cast<void*>(UINTPTR_MAX)}) {
    CHECK(ending_of([&] { f.heap->deallocate(ptr); }) == foreign_text("free", ptr));
    CHECK(ending_of([&] { f.heap->resize(ptr, 10); }) == foreign_text("realloc", ptr));
    CHECK(ending_of([&] { f.heap->usable_size(ptr); }) == foreign_text("malloc_usable_size", ptr));
  }
  f.heap->deallocate(nullptr);
}

TEST_CASE("heap: interior pointers into large objects are told by all calls") {
  Fixture f;
  char* const object = f.allocate(300 * 1024);
  const std::size_t bytes = f.heap->usable_size(object);
  for (const std::size_t offset : {std::size_t{8}, kPageBytes, bytes - 1}) {
    char* const ptr = object + offset;
    const std::string rest = "(" + hex(ptr) + "): interior pointer: the object begins at " +
                             hex(object) + " and has " + std::to_string(bytes) + " bytes";
    CHECK(ending_of([&] { f.heap->deallocate(ptr); }) == death("free" + rest));
    CHECK(ending_of([&] { f.heap->resize(ptr, 10); }) == death("realloc" + rest));
    CHECK(ending_of([&] { f.heap->usable_size(ptr); }) == death("malloc_usable_size" + rest));
  }
}

TEST_CASE("heap: a freed large object is stale for all calls") {
  Fixture f;
  char* const object = f.allocate(300 * 1024);
  f.heap->deallocate(object);
  const std::string rest = "(" + hex(object) + "): stale pointer: its pages are free";
  CHECK(ending_of([&] { f.heap->deallocate(object); }) == death("free" + rest));
  CHECK(ending_of([&] { f.heap->resize(object, 10); }) == death("realloc" + rest));
  CHECK(ending_of([&] { f.heap->usable_size(object); }) == death("malloc_usable_size" + rest));
}

TEST_CASE("heap: resize and usable_size look at small pointers at once") {
  Fixture f(check_free());
  char* const object = f.allocate(48);
  char* const neighbour = f.allocate(48);
  const std::string interior = "(" + hex(object + 8) +
                               "): interior pointer: the object begins at " + hex(object) +
                               " and has 48 bytes";
  CHECK(ending_of([&] { f.heap->resize(object + 8, 10); }) == death("realloc" + interior));
  CHECK(ending_of([&] { f.heap->resize(object + 8, 0); }) == death("realloc" + interior));
  CHECK(ending_of([&] { f.heap->usable_size(object + 8); }) ==
        death("malloc_usable_size" + interior));
  f.heap->deallocate(object);
  const std::string stale = "(" + hex(object) + "): stale pointer: the object is already free";
  CHECK(ending_of([&] { f.heap->resize(object, 10); }) == death("realloc" + stale));
  CHECK(ending_of([&] { f.heap->usable_size(object); }) == death("malloc_usable_size" + stale));
  f.heap->deallocate(neighbour);
}

TEST_CASE("heap: with MINITC_CHECK_FREE every bad free is found at the call", "[I7]") {
  Fixture f(check_free());
  char* const object = f.allocate(48);
  char* const neighbour = f.allocate(48);
  CHECK_FALSE(f.heap.has_cache());
  CHECK(ending_of([&] { f.heap->deallocate(object + 8); }) ==
        death("free(" + hex(object + 8) + "): interior pointer: the object begins at " +
              hex(object) + " and has 48 bytes"));
  f.heap->deallocate(object);
  CHECK(ending_of([&] { f.heap->deallocate(object); }) ==
        death("free(" + hex(object) + "): double free: the object is already free"));
  f.heap->deallocate(neighbour);
  f.heap->trim();
  CHECK(ending_of([&] { f.heap->deallocate(object); }) ==
        death("free(" + hex(object) + "): stale pointer: its pages are free"));
  CHECK(f.snapshot().thread_cached == 0);
}

TEST_CASE("heap: without it they are found when they leave the thread cache", "[I7]") {
  Fixture f;
  char* const object = f.allocate(48);
  f.heap->deallocate(object);
  f.heap->deallocate(object);
  CHECK(ending_of([&] { f.heap->trim(); }) ==
        death("free(" + hex(object) +
              "): double free: the object is already free (found when it left the thread cache; "
              "MINITC_CHECK_FREE=1 finds it at the call)"));
  f.allocate(48);  // taken back, or the end of the test would find it
}

// --- Bad pointers, ignored ----------------------------------------------------------------------

Options ignoring(std::size_t check_free) {
  Options options;
  options.on_bad_free = Options::kIgnore;
  options.check_free = check_free;
  return options;
}

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

TEST_CASE("heap, ignoring: a bad pointer changes nothing, whatever is done with it", "[I4][I7]") {
  Fixture f(ignoring(/*check_free=*/1));
  char* const small = f.filled(48, 1);
  char* const large = f.filled(300 * 1024, 2);
  char* const freed = f.allocate(48);
  char* const freed_large = f.allocate(400 * 1024);
  f.heap->deallocate(freed);
  f.heap->deallocate(freed_large);
  int on_stack = 0;
  const std::size_t live = f.live();
  for (void* const bad : {static_cast<void*>(&on_stack), reinterpret_cast<void*>(UINTPTR_MAX),
                          static_cast<void*>(small + 16), static_cast<void*>(large + kPageBytes),
                          static_cast<void*>(freed), static_cast<void*>(freed_large)}) {
    CAPTURE(bad);
    const std::string text = test::stderr_of([&] {
      f.heap->deallocate(bad);
      CHECK(f.heap->resize(bad, 10) == nullptr);
      CHECK(f.heap->resize(bad, 1000 * 1000) == nullptr);
      CHECK(f.heap->resize(bad, 0) == nullptr);
      CHECK(f.heap->usable_size(bad) == 0);
    });
    CHECK(lines(text) == 5);
    CHECK(f.live() == live);
    f.check();
  }
  CHECK(f.heap->usable_size(small) == 48);
  CHECK(all_bytes_are(small, 48, 1));
  CHECK(all_bytes_are(large, 300 * 1024, 2));
  f.heap->deallocate(small);
  f.heap->deallocate(large);
  CHECK(f.live() == 0);
}

TEST_CASE("heap, ignoring: each call site speaks once") {
  Fixture f(ignoring(/*check_free=*/0));
  int on_stack = 0;
  const std::string text = test::stderr_of([&] {
    for (int i = 0; i < 1000; ++i) {
      f.heap->deallocate_slow(&on_stack, 0x401000);
      f.heap->deallocate_slow(&on_stack, 0x402000);
      f.heap->resize(&on_stack, 10, 0x403000);
      f.heap->usable_size(&on_stack, 0x404000);
    }
  });
  CHECK(lines(text) == 4);
}

TEST_CASE("heap, ignoring: what is found late leaves the thread cache and is gone", "[I7][I9]") {
  Fixture f(ignoring(/*check_free=*/0));
  std::vector<char*> kept;
  std::vector<char*> freed;
  for (int i = 0; i < 500; ++i) {  // in the same spans
    kept.push_back(f.filled(48, 1));
    freed.push_back(f.filled(48, 2));
  }
  const std::string text = test::stderr_of([&] {
    for (int round = 0; round < 3; ++round) {
      for (char* const object : freed) f.heap->deallocate(object);
      for (char* const object : kept) f.heap->deallocate(object + 16);
    }
    f.heap->trim();
  });
  // Once for the class and the reason, whatever the number.
  CHECK(lines(text) == 2);
  CHECK(text.find("double free: the object is already free (found when") != std::string::npos);
  CHECK(text.find("interior pointer: the object begins at ") != std::string::npos);
  CHECK(f.live() == kept.size() * 48);
  f.check();
  std::set<char*> all(kept.begin(), kept.end());
  for (int i = 0; i < 1000; ++i) CHECK(all.insert(f.allocate(48)).second);
  for (char* const object : kept) CHECK(all_bytes_are(object, 48, 1));
}

// --- Threads ------------------------------------------------------------------------------------

TEST_CASE("heap: a thread has a cache from its first small allocation to its end", "[I10]") {
  Fixture f;
  CHECK_FALSE(f.heap.has_cache());
  f.heap->deallocate(f.allocate(kMaxSmall + 1));
  CHECK_FALSE(f.heap.has_cache());
  f.allocate(10);
  CHECK(f.heap.has_cache());
  CHECK(f.snapshot().threads == 1);
  void* from_thread = nullptr;
  test::in_threads(1, [&](std::size_t) {
    for (int i = 0; i < 100; ++i) from_thread = f.heap->allocate(1000);
    CHECK(f.heap.has_cache());
    CHECK(f.snapshot().threads == 2);
    CHECK(f.snapshot().thread_cached > 0);
    f.check();
  });
  CHECK(f.snapshot().threads == 1);
  CHECK(f.live() == 100 * 1024 + 16);
  f.check();  // with the budget whole again
  f.heap->deallocate(from_thread);
}

TEST_CASE("heap: a thread that only frees gets a cache after a while, and gives it up at its end",
          "[I7][I10]") {
  Fixture f;
  std::vector<char*> objects;
  for (std::uint32_t i = 0; i < 2 * kLoneFrees; ++i) objects.push_back(f.allocate(48));
  const std::size_t threads = f.snapshot().threads;
  test::in_threads(1, [&](std::size_t) {
    for (std::uint32_t i = 0; i < 2 * kLoneFrees; ++i) {
      f.heap->deallocate(objects[i]);
      if (f.heap.has_cache() != (i >= kLoneFrees)) FAIL("a cache at free " << i);
    }
  });
  CHECK(f.snapshot().threads == threads);
  CHECK(f.live() == 0);
  f.check();
}

TEST_CASE("heap: a thread past its end that frees gets no cache", "[I7]") {
  Fixture f;
  std::vector<char*> objects;
  for (std::uint32_t i = 0; i < 2 * kLoneFrees; ++i) objects.push_back(f.allocate(48));
  test::in_threads(1, [&](std::size_t) {
    f.heap->deallocate(objects.back());
    f.heap->retire_cache();  // as the key's destructor does, which the first free asked for
    objects.pop_back();
    for (char* const object : objects) f.heap->deallocate(object);
    CHECK_FALSE(f.heap.has_cache());
  });
  CHECK(f.live() == 0);
  f.check();
}

TEST_CASE("heap: after its cache is gone a thread still allocates and frees", "[I7]") {
  Fixture f;
  char* const before = f.allocate(48);
  f.heap->retire_cache();
  CHECK(f.snapshot().threads == 0);
  CHECK(f.snapshot().thread_cached == 0);
  f.heap->deallocate(before);
  std::vector<char*> objects;
  for (const std::size_t bytes : interesting_sizes()) objects.push_back(f.filled(bytes, 1));
  for (char*& object : objects) object = static_cast<char*>(f.heap->resize(object, 100));
  CHECK_FALSE(f.heap.has_cache());
  for (char* const object : objects) f.heap->deallocate(object);
  CHECK(f.snapshot().thread_cached == 0);
  CHECK(f.live() == 0);
  f.heap->retire_cache();
  CHECK(f.snapshot().threads == 0);
  f.check();
}

TEST_CASE("heap: threads that come and go need no new metadata", "[I10]") {
  Fixture f;
  std::size_t metadata = 0;
  for (int i = 0; i < 60; ++i) {
    test::in_threads(2, [&](std::size_t thread) {
      void* objects[50];
      for (void*& object : objects) object = f.heap->allocate(48 + 1000 * thread);
      for (void* const object : objects) f.heap->deallocate(object);
    });
    if (i == 5) metadata = f.snapshot().metadata;
  }
  CHECK(f.snapshot().metadata == metadata);
  CHECK(f.snapshot().threads == 0);
  f.check();
}

TEST_CASE("heap: where no thread's end can be noticed it works without caches") {
  std::vector<pthread_key_t> keys;
  pthread_key_t key;
  while (pthread_key_create(&key, nullptr) == 0) keys.push_back(key);
  {
    Fixture f;
    CHECK_FALSE(f.heap.ready());
    char* const object = f.filled(100, 1);
    REQUIRE(address(object) != nullptr);
    CHECK(f.snapshot().threads == 0);
    f.heap->deallocate(object);
    CHECK(f.live() == 0);
    f.check();
    for (const pthread_key_t each : keys) pthread_key_delete(each);
  }
}

TEST_CASE("heap: a thread cache without a budget holds nothing", "[I10]") {
  Options options;
  options.thread_cache_total = 0;
  Fixture f(options);
  std::vector<char*> objects;
  for (int i = 0; i < 100; ++i) objects.push_back(f.allocate(48));
  for (char* const object : objects) f.heap->deallocate(object);
  CHECK(f.snapshot().thread_cached == 0);
  f.check();
}

// --- Signals ------------------------------------------------------------------------------------

Heap* interrupted = nullptr;
std::size_t interruptions = 0;
std::size_t interruption_faults = 0;
void* kept_by_interruptions[120] = {};

// What a signal handler might do between any two instructions of a slow path. It frees what earlier
// ones allocated first, so that a stack that is full has more to take.
void interrupt() {
  static bool inside = false;
  if (inside) return;
  inside = true;
  ++interruptions;
  std::size_t i = 0;
  for (void* const object : kept_by_interruptions) interrupted->deallocate(object);
  for (void*& object : kept_by_interruptions) {
    object = interrupted->allocate(1000 + 500 * (i++ % 20));
    if (object == nullptr) ++interruption_faults;
  }
  inside = false;
}

TEST_CASE("heap: whoever interrupts a slow path may allocate and free", "[I7][I9]") {
  Options options;
  options.free_bound = kPageBytes;  // so that spilling asks the OS, where the interruption comes
  Fixture f(options);
  interrupted = &*f.heap;
  interruptions = interruption_faults = 0;
  f.fake.at_decommit(interrupt);
  test::Random random(4);
  std::vector<char*> objects;
  for (int i = 0; i < 1500; ++i) {
    if (random.below(3) != 0) {
      objects.push_back(f.filled(1000 + 500 * random.below(20), 1));
    } else if (!objects.empty()) {
      std::swap(objects[random.below(objects.size())], objects.back());
      f.heap->deallocate(objects.back());
      objects.pop_back();
    }
  }
  for (char* const object : objects) f.heap->deallocate(object);
  f.heap->trim();
  f.fake.at_decommit(nullptr);
  for (void*& object : kept_by_interruptions) {
    f.heap->deallocate(object);
    object = nullptr;
  }
  CHECK(interruptions > 10);
  CHECK(interruption_faults == 0);
  f.check();
  CHECK(f.live() == 0);
}

// --- Memory back to the OS ----------------------------------------------------------------------

TEST_CASE("heap: trim gives back what whole pages hold nothing any more", "[I6]") {
  Fixture f;
  std::vector<char*> objects;
  for (int i = 0; i < 3000; ++i) objects.push_back(f.filled(1000, 1));
  char* const large = f.filled(std::size_t{5} << 20, 2);
  const std::size_t kept = f.live() / 2;
  for (char* const object : objects) f.heap->deallocate(object);
  f.heap->deallocate(large);
  const std::size_t before = f.snapshot().returned;
  const std::size_t trimmed = f.heap->trim();
  CHECK(trimmed > kept);
  const Snapshot s = f.snapshot();
  CHECK(s.live == 0);
  CHECK(s.thread_cached == 0);
  CHECK(s.central == 0);
  CHECK(s.page_heap_free == 0);
  CHECK(s.returned == before + trimmed);
  CHECK(s.returned == s.mapped);
  CHECK(f.heap->trim() == 0);
  f.check();
}

// --- Refusals -----------------------------------------------------------------------------------

TEST_CASE("heap: whichever call the OS refuses, nothing else changes", "[I4][I7]") {
  const std::size_t page_bytes = GENERATE(4096, 64 * 1024);
  const std::size_t times = GENERATE(std::size_t{1}, test::kAlways);
  CAPTURE(page_bytes, times);
  std::size_t nth = 0;
  for (bool refused = true; refused;) {
    ++nth;
    CAPTURE(nth);
    Options options;
    options.free_bound = 64 * 1024;
    Fixture f(options, page_bytes);
    f.fake.fail_any(nth, times);
    std::vector<std::pair<char*, std::size_t>> objects;
    const auto keep = [&](void* ptr, std::size_t bytes) {
      if (ptr == nullptr) return;
      memset(ptr, 0x66, bytes);
      objects.emplace_back(static_cast<char*>(ptr), bytes);
    };
    for (const std::size_t bytes : {8UL, 48UL, 1000UL, 30000UL, kMaxSmall, 400 * 1024UL}) {
      keep(f.heap->allocate(bytes), bytes);
      keep(f.heap->allocate_aligned(bytes, 32 * 1024), bytes);
      void* const zeroed = f.heap->allocate_zeroed(bytes);
      if (zeroed != nullptr) REQUIRE(all_zero(zeroed, bytes));
      keep(zeroed, bytes);
    }
    for (auto& [object, bytes] : objects) {
      if (void* const resized = f.heap->resize(object, 3 * bytes); resized != nullptr) {
        REQUIRE(all_bytes_are(resized, bytes, 0x66));
        object = static_cast<char*>(resized);
      }
    }
    f.check();
    for (const auto& [object, bytes] : objects) {
      REQUIRE(all_bytes_are(object, bytes, 0x66));
      f.heap->deallocate(object);
    }
    refused = f.fake.refused() != 0;
    f.fake.stop_failing();
    f.heap->trim();
    f.check();
    CHECK(f.live() == 0);
    CHECK(f.snapshot().central == 0);
    CHECK(f.heap->allocate(100) != nullptr);
  }
  CHECK(nth > 10);
}

// --- Other machines -----------------------------------------------------------------------------

// The fake OS aborts when a call is not for whole kernel pages.
TEST_CASE("heap: with kernel pages of 4, 16 and 64 KiB all is accounted for and goes back",
          "[I4][I6]") {
  const std::size_t page_bytes = GENERATE(4096, 16 * 1024, 64 * 1024);
  CAPTURE(page_bytes);
  struct Held {
    char* object;
    std::size_t bytes;
    unsigned char value;
  };
  Options options;
  options.free_bound = 256 * 1024;
  Fixture f(options, page_bytes);
  test::Random random(page_bytes);
  std::vector<Held> held;
  const auto books_balance = [&f] {
    f.check();
    const Snapshot s = f.snapshot();
    return s.mapped + s.metadata == f.fake.mapped_bytes();
  };
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 300; ++i) {
      const std::size_t bytes = i % 10 == 0 ? kMaxSmall + random.below(std::size_t{2} << 20)
                                            : 1 + random.below(i % 3 == 0 ? 40000 : 500);
      char* const object = static_cast<char*>(f.heap->allocate_zeroed(bytes));
      REQUIRE(address(object) != nullptr);
      REQUIRE(all_zero(object, bytes));
      held.push_back({object, bytes, static_cast<unsigned char>(i)});
      memset(object, held.back().value, bytes);
    }
    for (std::size_t i = 0; i < held.size(); i += 5) {
      Held& h = held[i];
      const std::size_t bytes = 1 + random.below(2 * h.bytes);
      h.object = static_cast<char*>(f.heap->resize(h.object, bytes));
      REQUIRE(all_bytes_are(h.object, std::min(bytes, h.bytes), h.value));
      h.bytes = bytes;
      memset(h.object, h.value, bytes);
    }
    REQUIRE(books_balance());
    for (std::size_t left = held.size() / (round == 3 ? 1 : 2); left != 0; --left) {
      std::swap(held[random.below(held.size())], held.back());
      REQUIRE(all_bytes_are(held.back().object, held.back().bytes, held.back().value));
      f.heap->deallocate(held.back().object);
      held.pop_back();
    }
    REQUIRE(books_balance());
    f.heap->trim();
    REQUIRE(books_balance());
  }
  const Snapshot s = f.snapshot();
  CHECK(s.live == 0);
  CHECK(s.central == 0);
  // What shares a kernel page with pages that were never used cannot go back.
  CHECK(s.page_heap_free <= (page_bytes <= kPageBytes ? 0 : s.mapped / 16));
  CHECK(f.fake.calls(OsCall::kDecommit) > 10);
  // Only blocks that are whole kernel pages are moved, which few are of the longer ones.
  if (page_bytes == 4096) CHECK(f.fake.calls(OsCall::kMove) > 10);
  if (page_bytes == 4096) CHECK(f.fake.calls(OsCall::kRenew) > 10);
}

// A kernel that charges each writable mapping, used or not (vm.overcommit_memory=2), and places it,
// as all do, in front of the last.
TEST_CASE("heap: what a strict kernel charges is little more than what is live") {
  const std::size_t bytes =
      GENERATE(16, 112, 1000, 5000, 30000, 100000, 300000, 600000, 3000000, 20000000);
  CAPTURE(bytes);
  const std::size_t total = std::size_t{bytes < 1000 ? 32U : 512U} << 20;
  Fixture f({}, 4096, FakeOs::Layout::kFalling);
  std::size_t steps_beyond = 0;
  for (std::size_t live = 0; live < total;) {
    live += f.heap->usable_size(f.allocate(bytes));
    if (f.fake.mapped_bytes() > live + live / 5 + (std::size_t{9} << 20)) ++steps_beyond;
  }
  CHECK(steps_beyond == 0);
}

TEST_CASE("heap: at a strict kernel's limit all that is left is used, and it fails, frees, goes on",
          "[I4][I7]") {
  constexpr std::size_t kLimit = std::size_t{64} << 20;
  Fixture f({}, 4096, FakeOs::Layout::kFalling);
  f.fake.refuse_beyond(kLimit);
  std::size_t spoiled = 0;
  std::vector<char*> objects;
  for (const std::size_t bytes : {1000UL, 300000UL, 5000UL, 3000000UL, 100000UL, 224UL}) {
    CAPTURE(bytes);
    const std::size_t run_bytes = bytes > kMaxSmall
                                      ? align_up(bytes, kPageBytes)
                                      : PageCount{kSizeClasses[class_of(bytes)].pages}.bytes();
    for (int round = 0; round < 2; ++round) {
      for (char* object; (object = f.filled(bytes, 7)) != nullptr;) objects.push_back(object);
      CHECK(kLimit - f.fake.mapped_bytes() < run_bytes);
      CHECK(objects.size() * f.heap->usable_size(objects.front()) > kLimit / 3 * 2);
      CHECK(address(f.allocate(kLimit)) == nullptr);
      CHECK(f.heap->resize(objects.front(), kLimit) == nullptr);
      CHECK(all_bytes_are(objects.front(), bytes, 7));
      // Half is given back, the other half stays and pins what it can.
      for (std::size_t i = 0; i < objects.size() / 2; ++i) {
        if (!all_bytes_are(objects.back(), bytes, 7)) ++spoiled;
        f.heap->deallocate(objects.back());
        objects.pop_back();
      }
      f.check();
    }
    for (char* const object : objects) f.heap->deallocate(object);
    objects.clear();
  }
  CHECK(spoiled == 0);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: at the hard limit a request fails, whatever holds the rest, and later ones go on",
          "[I4][I7]") {
  Options options;
  options.hard_limit = std::size_t{32} << 20;
  Fixture f(options);
  for (const std::size_t bytes : {100UL, 5000UL, 100000UL, 3000000UL}) {
    CAPTURE(bytes);
    std::vector<char*> objects;
    for (char* object; (object = f.filled(bytes, 9)) != nullptr;) objects.push_back(object);
    const Snapshot s = f.snapshot();
    const std::size_t held = s.live + s.thread_cached + s.central + s.page_heap_free + s.metadata;
    const std::size_t map_bytes = s.metadata / (1 << 20) >= 2 ? std::size_t{9} << kLeafShift : 0;
    CHECK(held - map_bytes <= options.hard_limit);
    CHECK(s.live > options.hard_limit / 10 * 8);
    CHECK(f.heap->resize(objects[0], options.hard_limit) == nullptr);
    CHECK(all_bytes_are(objects[0], bytes, 9));
    CHECK(f.heap->allocate_zeroed(bytes) == nullptr);
    for (int i = 0; i < 3; ++i) {
      f.heap->deallocate(objects.back());
      objects.back() = f.filled(bytes, 9);
      REQUIRE(address(objects.back()) != nullptr);
    }
    for (char* const object : objects) f.heap->deallocate(object);
    f.check();
    CHECK(f.live() == 0);
  }
}

TEST_CASE("heap: an object whose pages are moved counts once, for the limits and the peak") {
  constexpr std::size_t kBytes = std::size_t{10} << 20;
  const bool is_moved = GENERATE(true, false);
  CAPTURE(is_moved);
  Options options;
  options.hard_limit = 2 * kBytes;
  options.soft_limit = 2 * kBytes - (kBytes >> 2);
  Fixture f(options);
  char* const object = f.filled(kBytes, 9);
  char* const wall = f.filled(kMaxSmall + 1, 8);
  REQUIRE(address(wall) != nullptr);
  if (!is_moved) f.fake.fail(OsCall::kMove, 1, test::kAlways);
  char* const moved = static_cast<char*>(f.heap->resize(object, kBytes / 8 * 11));
  REQUIRE((moved != nullptr) == is_moved);  // there is no memory for both
  CHECK(all_bytes_are(is_moved ? moved : object, kBytes, 9));
  CHECK(f.snapshot().peak <= (is_moved ? kBytes / 4 * 7 : 2 * kBytes));
  f.fake.stop_failing();
  f.check();
  char* const more = static_cast<char*>(f.heap->resize(is_moved ? moved : object, kBytes / 8 * 13));
  REQUIRE(address(more) != nullptr);
  CHECK(all_bytes_are(more, kBytes, 9));
  CHECK(all_bytes_are(wall, kMaxSmall + 1, 8));
  f.heap->deallocate(more);
  f.heap->deallocate(wall);
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE(
    "heap: at the hard limit the caches give up what they hold for more than was ever mapped") {
  const bool grows = GENERATE(false, true);
  CAPTURE(grows);
  constexpr std::size_t kLimit = std::size_t{8} << 20;
  Options options;
  options.hard_limit = kLimit;
  Fixture f(options);
  for (std::size_t bytes = 512; bytes <= 64 * 1024; bytes += bytes / 8) {
    for (int round = 0; round < 8; ++round) {
      std::vector<char*> objects(512 * 1024 / bytes);
      for (char*& object : objects) object = f.allocate(bytes);
      for (char* const object : objects) f.heap->deallocate(object);
    }
  }
  REQUIRE(f.snapshot().thread_cached > kLimit / 8);
  REQUIRE(f.snapshot().mapped < kLimit * 7 / 8);
  char* block = f.allocate(grows ? kLimit / 16 : kLimit * 7 / 8);
  if (grows) {
    REQUIRE(f.snapshot().thread_cached > kLimit / 8);
    block = static_cast<char*>(f.heap->resize(block, kLimit * 13 / 16));
  }
  REQUIRE(block != nullptr);
  f.heap->deallocate(block);
  f.check();
}

TEST_CASE("heap: above the soft limit the caches give up what they hold, and requests go on") {
  Options options;
  options.soft_limit = std::size_t{8} << 20;
  Fixture f(options);
  std::vector<char*> objects;
  for (int i = 0; i < 6000; ++i) objects.push_back(f.allocate(1000));
  for (int i = 0; i < 300; ++i) {
    f.heap->deallocate(objects.back());
    objects.pop_back();
  }
  CHECK(f.snapshot().thread_cached > 50000);
  objects.push_back(f.allocate(std::size_t{16} << 20));
  REQUIRE(address(objects.back()) != nullptr);
  CHECK(f.snapshot().thread_cached == 0);
  CHECK(f.snapshot().page_heap_free == 0);
  for (int i = 0; i < 60000; ++i) objects.push_back(f.allocate(1000));
  CHECK(address(objects.back()) != nullptr);
  for (char* const object : objects) f.heap->deallocate(object);
  f.check();
  CHECK(f.live() == 0);
  CHECK(f.snapshot().page_heap_free <= options.soft_limit);
}

TEST_CASE("heap: memory that has been free for long goes back, as others allocate") {
  Fixture f;
  f.heap->deallocate(f.filled(std::size_t{20} << 20, 1));
  CHECK(f.snapshot().page_heap_free >= std::size_t{20} << 20);
  for (int second = 0; second < 20; ++second) {
    f.fake.pass_ms(kAgeMs);
    // A light load: it never comes to the page heap.
    std::vector<char*> objects;
    for (std::uint32_t i = 0; i < 64 * kTickPeriod; ++i) objects.push_back(f.allocate(64));
    for (char* const object : objects) f.heap->deallocate(object);
  }
  CHECK(f.snapshot().page_heap_free < std::size_t{1} << 20);
  f.check();
}

// Of `count` objects in a row, full of 5, those that are left when three in four have been freed,
// and are in no cache.
std::vector<char*> one_in_four(Fixture& f, std::size_t count, std::size_t bytes) {
  std::vector<char*> objects;
  for (std::size_t i = 0; i < count; ++i) objects.push_back(f.filled(bytes, 5));
  std::vector<char*> left;
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 4 == 0) {
      left.push_back(objects[i]);
    } else {
      f.heap->deallocate(objects[i]);
    }
  }
  f.heap->flush_cache();
  return left;
}

TEST_CASE(
    "heap: what a program took again before a pause is no reason to keep what it frees after") {
  constexpr std::size_t kBytes = 2 * kMinFreeBound;
  Fixture f;
  char* const stays = f.allocate(kBytes);
  char* const object = f.allocate(kBytes);
  for (std::size_t done = 0; done < 2 * kBytes; done += 2 * kMaxSmall) {
    f.heap->deallocate(f.allocate(2 * kMaxSmall));
  }
  f.fake.pass_ms(2 * kReuseMs);
  f.heap->deallocate(object);
  CHECK(f.fake.decommitted_bytes() >= kBytes - kHugePageBytes);  // less what lies at its ends
  f.heap->deallocate(stays);
  f.check();
}

TEST_CASE(
    "heap: memory of small objects goes back after a while where there are no thread caches") {
  constexpr std::size_t kBytes = 8192;
  Fixture f(check_free());
  std::vector<char*> objects(3 * kMinFreeBound / kBytes);
  for (int round = 0; round < 3; ++round) {
    for (char*& object : objects) object = f.allocate(kBytes);
    for (char* const object : objects) f.heap->deallocate(object);
  }
  for (int i = 0; i < 30; ++i) {
    f.fake.pass_ms(kAgeMs);
    f.heap->deallocate(f.allocate(kBytes));
  }
  CHECK(f.snapshot().page_heap_free < kMinFreeBound / 8);
  f.check();
}

TEST_CASE("heap: what has lain through a pause goes back in the burst of calls after it", "[I8]") {
  constexpr std::size_t kBytes = 8192;
  constexpr std::size_t kObjects = 1000;
  Fixture f;
  const std::vector<char*> objects = one_in_four(f, kObjects, kBytes);
  const std::size_t before = f.fake.decommitted_bytes();
  std::vector<char*> others;
  const auto come_by = [&](int calls) {
    for (int i = 0; i < calls; ++i) others.push_back(f.allocate(kMaxSmall + 1));
  };
  for (unsigned round = 0; round <= kQuietRounds; ++round) {
    f.fake.pass_ms(kAgeMs);
    come_by(1);
  }
  CHECK(f.fake.decommitted_bytes() - before < kObjects / 8 * kBytes);
  come_by(100);
  CHECK(f.fake.decommitted_bytes() - before > kObjects / 2 * kBytes);
  for (char* const other : others) f.heap->deallocate(other);
  for (char* const object : objects) {
    CHECK(all_bytes_are(object, kBytes, 5));
    f.heap->deallocate(object);
  }
  f.check();
}

TEST_CASE("heap: pages of free objects in spans in use go back by trim, and after a while",
          "[I7][I8]") {
  constexpr std::size_t kBytes = 8192;
  constexpr std::size_t kObjects = 1000;
  const bool has_bound = GENERATE(false, true);
  const bool wants_huge_pages = GENERATE(false, true);
  CAPTURE(has_bound, wants_huge_pages);
  Options options;
  if (has_bound) options.free_bound = std::size_t{1} << 30;
  if (wants_huge_pages) options.huge_pages = Options::kYes;
  Fixture f(options);
  const std::vector<char*> objects = one_in_four(f, kObjects, kBytes);
  const std::size_t before = f.fake.decommitted_bytes();
  for (int i = 0; i < 300; ++i) {
    f.fake.pass_ms(kTickMs);
    f.heap->deallocate(f.allocate(kMaxSmall + 1));
  }
  const std::size_t quiet = f.fake.decommitted_bytes() - before;
  CHECK((quiet > kObjects / 2 * kBytes) == (!has_bound && !wants_huge_pages));
  CHECK((quiet == 0) == (has_bound || wants_huge_pages));
  f.heap->trim();
  CHECK(f.fake.decommitted_bytes() - before > kObjects / 2 * kBytes);
  for (char* const object : objects) {
    CHECK(all_bytes_are(object, kBytes, 5));
    f.heap->deallocate(object);
  }
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: calloc of pages that were only offered clears them, resident or not", "[I6]") {
  Options options;
  options.release = Options::kOffer;
  options.free_bound = kPageBytes;
  Fixture f(options);
  for (int i = 0; i < 4; ++i) {
    char* const dirty = f.filled(3000000, 5);
    REQUIRE(f.allocate(300000) != nullptr);
    f.heap->deallocate(dirty);
    char* const clean = static_cast<char*>(f.heap->allocate_zeroed(3000000));
    CHECK(all_zero(clean, 3000000));
    f.heap->deallocate(clean);
  }
  CHECK(f.fake.offered_bytes() > 0);
  f.check();
}

TEST_CASE("heap: who only resizes large blocks lets what is idle go") {
  Fixture f;
  f.allocate(100);
  char* object = f.allocate(1 << 20);
  f.heap->deallocate(f.filled(std::size_t{16} << 20, 1));
  const std::size_t before = f.fake.decommitted_bytes();
  for (int i = 0; i < 16; ++i) {
    f.fake.pass_ms(kAgeMs);
    object = static_cast<char*>(f.heap->resize(object, std::size_t{1 + (i & 1U)} << 20));
    REQUIRE(address(object) != nullptr);
  }
  CHECK(f.fake.decommitted_bytes() - before > 8 << 20);
  f.check();
}

// --- Idle threads -------------------------------------------------------------------------------

// Threads that fill their caches, then sleep until told to end.
struct Sleepers {
  Sleepers(Heap& heap, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      threads.emplace_back([this, &heap] {
        void* objects[400];
        for (const std::size_t bytes : {64UL, 512UL, 4000UL}) {
          for (int round = 0; round < 6; ++round) {
            for (void*& object : objects) object = heap.allocate(bytes);
            for (void* const object : objects) heap.deallocate(object);
          }
        }
        asleep.fetch_add(1);
        while (!wake.load()) std::this_thread::yield();
        for (void*& object : objects) object = heap.allocate(64);
        for (void* const object : objects) heap.deallocate(object);
        heap.retire_cache();
      });
    }
    while (asleep.load() != count) std::this_thread::yield();
  }
  ~Sleepers() {
    wake = true;
    for (std::thread& thread : threads) thread.join();
  }
  std::atomic<std::size_t> asleep{0};
  std::atomic<bool> wake{false};
  std::vector<std::thread> threads;
};

TEST_CASE("heap: idle threads lose what they cache to one that is short of it, and wake up well",
          "[I7][I10]") {
  Options options;
  options.thread_cache_total = 1024 * 1024;
  Fixture f(options);
  {
    const Sleepers sleepers(*f.heap, 6);
    REQUIRE(f.snapshot().thread_cached > options.thread_cache_total / 8);
    std::vector<char*> objects;
    for (int round = 0; round < 40; ++round) {
      f.fake.pass_ms(kTickMs);
      for (int i = 0; i < 500; ++i) objects.push_back(f.allocate(1000));
      for (char* const object : objects) f.heap->deallocate(object);
      objects.clear();
    }
    const Snapshot s = f.snapshot();
    CHECK(s.threads == 7);
    CHECK(s.classes[class_of(4000)].thread_cached <= 7);  // one each
    CHECK(s.classes[class_of(1000)].thread_cached > 100);
    f.heap->check_caches();
  }
  f.check();
  CHECK(f.live() == 0);
  CHECK(f.snapshot().threads == 1);
}

TEST_CASE("heap: threads that are idle for long lose what they cache, though nobody is short",
          "[I7][I10]") {
  Fixture f;
  {
    const Sleepers sleepers(*f.heap, 4);
    const auto cached = [&] { return f.snapshot().classes[class_of(4000)].thread_cached; };
    const std::size_t before = cached();
    REQUIRE(before > 40);
    const auto pass = [&](std::uint32_t ms) {
      f.fake.pass_ms(ms);
      f.heap->deallocate(f.allocate(kMaxSmall + 1));
    };
    pass(kAgeMs);  // parks them
    pass(kAgeMs - kTickMs);
    CHECK(cached() == before);
    pass(kTickMs);
    CHECK(cached() <= 4);  // one each
    f.heap->check_caches();
  }
  f.check();
  CHECK(f.live() == 0);
}

TEST_CASE("heap: of many idle threads a few are robbed at each tick, until all are", "[I7][I10]") {
  constexpr std::size_t kThreads = 2 * kMaxRobbed + 2;
  Fixture f;
  const Sleepers sleepers(*f.heap, kThreads);
  const auto cached = [&] { return f.snapshot().classes[class_of(4000)].thread_cached; };
  const auto pass = [&](std::uint32_t ms) {
    f.fake.pass_ms(ms);
    f.heap->deallocate(f.allocate(kMaxSmall + 1));
  };
  pass(kAgeMs);  // parks them
  const std::size_t before = cached();
  pass(kAgeMs);
  CHECK(cached() > before / 3);
  pass(kTickMs);
  CHECK(cached() < before / 3);
  pass(kTickMs);
  CHECK(cached() <= kThreads);  // one each
}

// Another thread parks caches while the first is held up between its look at the clock and its look
// at the caches.
TEST_CASE("heap: a cache that was just parked is not robbed by a thread with an old time",
          "[I10]") {
  static Fixture* fixture;
  static bool overtakes;
  Fixture f;
  fixture = &f;
  overtakes = false;
  const auto pass = [](std::uint32_t ms) {
    fixture->fake.pass_ms(ms);
    fixture->heap->deallocate(fixture->allocate(kMaxSmall + 1));
  };
  f.heap->deallocate(f.allocate(8 * 1024 * 1024));
  pass(kAgeMs);
  {
    const Sleepers sleepers(*f.heap, 1);
    const std::size_t before = f.snapshot().thread_cached;
    REQUIRE(before > 0);
    f.fake.at_decommit([] {
      if (overtakes) return;
      overtakes = true;
      test::in_threads(1, [&](std::size_t) {
        fixture->fake.pass_ms(kAgeMs);
        fixture->heap->deallocate(fixture->heap->allocate(kMaxSmall + 1));
      });
    });
    pass(kAgeMs);
    f.fake.at_decommit(nullptr);
    CHECK(overtakes);
    CHECK(f.snapshot().thread_cached == before);
    pass(kAgeMs);
    CHECK(f.snapshot().thread_cached < before);
  }
  f.check();
}

TEST_CASE("heap: threads that are at work keep what they cache, though others are short", "[I10]") {
  Options options;
  options.thread_cache_total = 256 * 1024;
  Fixture f(options);
  std::atomic<std::size_t> bad{0};
  test::in_threads(6, [&](std::size_t thread) {
    void* objects[64] = {};
    test::Random random(thread);
    for (std::size_t i = 0; i < 20000 * test::kRounds; ++i) {
      void*& object = objects[random.below(64)];
      if (object != nullptr && *static_cast<std::size_t*>(object) != thread) ++bad;
      f.heap->deallocate(object);
      f.fake.pass_ms(i % 64 == 0 ? kTickMs : 0);
      object = f.heap->allocate(8 + random.below(6000));
      *static_cast<std::size_t*>(object) = thread;
    }
    for (void* const object : objects) f.heap->deallocate(object);
    f.heap->retire_cache();
  });
  CHECK(bad == 0);
  f.check();
  CHECK(f.live() == 0);
  CHECK(f.snapshot().threads == 0);
}

// --- Everything at once -------------------------------------------------------------------------

TEST_CASE("heap: threads allocate, resize and free each other's objects while others look",
          "[I7]") {
  Options options;
  options.free_bound = 256 * 1024;
  options.thread_cache_total = 512 * 1024;
  Fixture f(options);
  struct Slot {
    std::atomic<unsigned char*> object{nullptr};
  };
  std::vector<Slot> slots(128);
  std::atomic<std::size_t> spoiled{0};
  std::atomic<std::size_t> unbalanced{0};
  const auto snapshots = std::make_unique<Snapshot[]>(8);
  test::in_threads(8, [&](std::size_t thread) {
    test::Random random(thread);
    for (std::size_t i = 0; i < 600 * test::kRounds; ++i) {
      const std::size_t slot = random.below(slots.size());
      const auto value = static_cast<unsigned char>(slot + 1);
      const std::size_t bytes =
          slot % 16 == 0 ? kMaxSmall + random.below(kMaxSmall) : 1 + random.below(slot * 40 + 40);
      auto* object = static_cast<unsigned char*>(slot % 3 == 0 ? f.heap->allocate_zeroed(bytes)
                                                               : f.heap->allocate(bytes));
      if (slot % 3 == 0 && !all_zero(object, bytes)) ++spoiled;
      memset(object, value, std::min<std::size_t>(bytes, 256));
      object = slots[slot].object.exchange(object);
      if (object != nullptr) {
        if (random.below(4) == 0) {
          const unsigned char first = object[0];
          object = static_cast<unsigned char*>(f.heap->resize(object, 1 + random.below(3 * bytes)));
          if (object[0] != first) ++spoiled;
        }
        if (object[0] != value) ++spoiled;
        f.heap->deallocate(object);
      }
      f.fake.pass_ms(i % 16 == 0 ? kTickMs : 0);
      if (thread == 0 && i % 32 == 0) f.heap->trim();
      if (thread == 1 && i % 64 == 0) f.heap->check();
      if (thread >= 2 && i % 64 == 0) {
        Snapshot& s = snapshots[thread];
        Snapshot::take(*f.heap, s);
        if (s.mapped != s.live + s.thread_cached + s.central + s.page_heap_free + s.returned) {
          ++unbalanced;
        }
      }
    }
  });
  CHECK(spoiled == 0);
  CHECK(unbalanced == 0);
  for (Slot& slot : slots) f.heap->deallocate(slot.object.load());
  f.check();
  CHECK(f.live() == 0);
  CHECK(f.snapshot().threads == 0);
  f.heap->trim();
  const Snapshot s = f.snapshot();
  CHECK(s.mapped == s.returned);
}

}  // namespace
}  // namespace minitc
