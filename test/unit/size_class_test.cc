#include "core/size_class.h"

#include <catch2/catch.hpp>

namespace minitc {
namespace {

// Counts instead of asserting each: the loops below go over millions of cases.
TEST_CASE("size class: every size has the smallest class that holds it") {
  std::size_t wrong = 0;
  for (std::size_t bytes = 1; bytes <= kMaxSmall; ++bytes) {
    const unsigned cls = class_of(bytes);
    if (cls == 0 || cls >= kNumClasses) {
      ++wrong;
      continue;
    }
    if (kSizeClasses[cls].bytes < bytes || kSizeClasses[cls - 1].bytes >= bytes) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("size class: rounding up wastes at most an eighth, or less than the alignment") {
  std::size_t wrong = 0;
  for (std::size_t bytes = 1; bytes <= kMaxSmall; ++bytes) {
    const std::size_t waste = kSizeClasses[class_of(bytes)].bytes - bytes;
    if (waste >= kMinAlign && waste * 8 > bytes) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("size class: results of 9 bytes and more are aligned to 16, of less to 8") {
  std::size_t wrong = 0;
  for (std::size_t bytes = 1; bytes <= kMaxSmall; ++bytes) {
    // Spans start at a page, so the distance of the objects tells.
    if (kSizeClasses[class_of(bytes)].bytes % (bytes < 9 ? 8 : 16) != 0) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("size class: 0 and what is too large have no slot") {
  CHECK(slot_of(0) >= kClassOfSlot.size());
  CHECK(slot_of(1) == 0);
  CHECK(slot_of(kMaxSmall) == kClassOfSlot.size() - 1);
  CHECK(slot_of(kMaxSmall + 1) == kClassOfSlot.size());
  CHECK(slot_of(PTRDIFF_MAX) >= kClassOfSlot.size());
  CHECK(slot_of(SIZE_MAX) >= kClassOfSlot.size());
}

TEST_CASE("size class: class 0 stands for no object") {
  CHECK(kSizeClasses[0].bytes == 0);
  CHECK(kSizeClasses[0].objects == 0);
  CHECK(kSizeClasses[0].max_cached == 0);
}

TEST_CASE("size class: objects fill their spans but for a 24th") {
  for (std::size_t cls = 1; cls < kNumClasses; ++cls) {
    const SizeClass& c = kSizeClasses[cls];
    CAPTURE(cls, c.bytes);
    const std::size_t span = c.pages * kPageBytes;
    const std::size_t used = std::size_t{c.objects} * c.bytes;
    CHECK(used <= span);
    CHECK(span - used < c.bytes);
    CHECK((span - used) * 24 <= span);
  }
}

TEST_CASE("size class: batches and caches keep to their bounds") {
  for (std::size_t cls = 1; cls < kNumClasses; ++cls) {
    const SizeClass& c = kSizeClasses[cls];
    CAPTURE(cls, c.bytes);
    CHECK(is_power_of_two(c.max_cached));
    CHECK(c.max_cached >= kMinCachedObjects);
    CHECK(c.max_cached <= kMaxCachedObjects);
    CHECK((c.max_cached == kMinCachedObjects || c.max_cached * c.bytes <= kMaxCachedBytes));
    CHECK((c.max_cached == kMaxCachedObjects || 2 * c.max_cached * c.bytes > kMaxCachedBytes));
    CHECK(c.batch >= 1);
    CHECK(c.batch <= kMaxBatch);
    CHECK(2 * c.batch <= c.max_cached);
  }
}

TEST_CASE("size class: the object at every offset of every span is found", "[I7]") {
  std::size_t offsets = 0;
  std::size_t wrong = 0;
  for (std::size_t cls = 1; cls < kNumClasses; ++cls) {
    const SizeClass& c = kSizeClasses[cls];
    std::size_t index = 0;
    std::size_t in_object = 0;
    for (std::size_t offset = 0; offset < c.pages * kPageBytes; ++offset, ++offsets) {
      if (object_index(c, offset) != index) ++wrong;
      if (++in_object == c.bytes) {
        in_object = 0;
        ++index;
      }
    }
  }
  CHECK(offsets > 1000000);
  CHECK(wrong == 0);
}

// By trying all classes.
unsigned plain_aligned_class_of(std::size_t bytes, std::size_t alignment) {
  if (alignment > kPageBytes) return 0;
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    if (kSizeClasses[cls].bytes >= bytes && kSizeClasses[cls].bytes % alignment == 0) return cls;
  }
  return 0;
}

TEST_CASE("size class: the smallest aligned class is found for every size and alignment") {
  std::size_t wrong = 0;
  for (std::size_t alignment = 1; alignment <= 4 * kPageBytes; alignment *= 2) {
    for (std::size_t bytes = 0; bytes <= kMaxSmall + 64; bytes += bytes < 4096 ? 1 : 61) {
      if (aligned_class_of(bytes, alignment) != plain_aligned_class_of(bytes, alignment)) ++wrong;
    }
    for (const SizeClass& c : kSizeClasses) {
      for (const std::size_t bytes : {c.bytes - 1UL, c.bytes + 0UL, c.bytes + 1UL}) {
        if (aligned_class_of(bytes, alignment) != plain_aligned_class_of(bytes, alignment)) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("size class: alignments and sizes beyond reason have no class") {
  CHECK(aligned_class_of(1, std::size_t{1} << 63) == 0);
  CHECK(aligned_class_of(SIZE_MAX, 1) == 0);
  CHECK(aligned_class_of(SIZE_MAX, kPageBytes) == 0);
  CHECK(aligned_class_of(kMaxSmall, kPageBytes) == kNumClasses - 1);
  CHECK(aligned_class_of(kMaxSmall + 1, 1) == 0);
}

}  // namespace
}  // namespace minitc
