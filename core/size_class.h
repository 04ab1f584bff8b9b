// The size classes: which sizes there are, how long their spans are, how many objects move at once.
//
// Sizes are 8, then multiples of 16 to 128, then eight equal steps per doubling to kMaxSmall, so
// that from 128 bytes on rounding up wastes at most an eighth. The table is computed and checked by
// the compiler.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base.h"

namespace MINITC_HIDDEN minitc {

struct SizeClass {
  std::uint32_t bytes;       // of an object
  std::uint16_t pages;       // of a span
  std::uint16_t objects;     // in a span
  std::uint16_t batch;       // objects that move between tiers at a time, at most
  std::uint16_t max_cached;  // objects of one thread, at most; a power of two
  std::uint64_t reciprocal;  // of `bytes`, for object_index()

  constexpr std::size_t words() const { return (objects + 63U) / 64; }  // of a bitmap
};

// Class 0 is "not a small object".
inline constexpr std::size_t kStepsPerDoubling = 8;
inline constexpr std::size_t kNumClasses = 90;
inline constexpr unsigned kReciprocalShift = 40;

namespace size_class_detail {

constexpr std::size_t next_size(std::size_t bytes) {
  if (bytes < 16) return bytes + 8;
  if (bytes < 128) return bytes + 16;
  std::size_t power = 128;
  while (power * 2 <= bytes) power *= 2;
  return bytes + power / kStepsPerDoubling;
}

// Enough objects that a span is worth its metadata and its trip through the page heap.
constexpr std::size_t wanted_objects(std::size_t bytes) {
  if (bytes <= 2048) return 8;
  if (bytes <= 16 * 1024) return 4;
  return bytes <= 64 * 1024 ? 2 : 1;
}

// The shortest span with enough objects and at most 1/24 of it unused behind the last.
constexpr std::size_t span_pages(std::size_t bytes) {
  for (std::size_t pages = 1;; ++pages) {
    const std::size_t span = pages * kPageBytes;
    if (span / bytes >= wanted_objects(bytes) && (span % bytes) * 24 <= span) return pages;
  }
}

constexpr std::size_t max_cached(std::size_t bytes) {
  std::size_t n = kMinCachedObjects;
  while (n * 2 <= kMaxCachedObjects && n * 2 * bytes <= kMaxCachedBytes) n *= 2;
  return n;
}

constexpr auto make_classes() {
  std::array<SizeClass, kNumClasses> classes{};
  std::size_t bytes = kGrain;
  for (std::size_t cls = 1; cls < kNumClasses; ++cls, bytes = next_size(bytes)) {
    const std::size_t pages = span_pages(bytes);
    const std::size_t cached = max_cached(bytes);
    const std::size_t batch =
        std::max(std::size_t{1}, std::min({cached / 2, kMaxBatch, kMaxBatchBytes / bytes}));
    classes[cls] = SizeClass{
        .bytes = static_cast<std::uint32_t>(bytes),
        .pages = static_cast<std::uint16_t>(pages),
        .objects = static_cast<std::uint16_t>(pages * kPageBytes / bytes),
        .batch = static_cast<std::uint16_t>(batch),
        .max_cached = static_cast<std::uint16_t>(cached),
        .reciprocal = (std::uint64_t{1} << kReciprocalShift) / bytes + 1,
    };
  }
  return classes;
}

}  // namespace size_class_detail

inline constexpr std::array<SizeClass, kNumClasses> kSizeClasses =
    size_class_detail::make_classes();

namespace size_class_detail {

constexpr auto make_index() {
  std::array<std::uint8_t, kMaxSmall / kGrain> index{};
  std::size_t cls = 1;
  for (std::size_t slot = 0; slot < index.size(); ++slot) {
    if ((slot + 1) * kGrain > kSizeClasses[cls].bytes) ++cls;
    index[slot] = static_cast<std::uint8_t>(cls);
  }
  return index;
}

constexpr std::size_t max_span_bytes() {
  std::size_t max = 0;
  for (const SizeClass& c : kSizeClasses) max = c.pages > max ? c.pages : max;
  return max * kPageBytes;
}

constexpr bool well_formed() {
  for (std::size_t cls = 1; cls < kNumClasses; ++cls) {
    const SizeClass& c = kSizeClasses[cls];
    if (c.bytes <= kSizeClasses[cls - 1].bytes) return false;
    if (c.bytes % (c.bytes < kMinAlign ? kGrain : kMinAlign) != 0) return false;
    const std::size_t step = c.bytes - kSizeClasses[cls - 1].bytes;
    if (c.bytes > 128 && step * kStepsPerDoubling > kSizeClasses[cls - 1].bytes) return false;
    if (c.objects == 0 || c.batch == 0 || c.batch > c.max_cached) return false;
    if (!is_power_of_two(c.max_cached)) return false;
  }
  return kSizeClasses[1].bytes == kGrain && kSizeClasses[kNumClasses - 1].bytes == kMaxSmall;
}

}  // namespace size_class_detail

static_assert(size_class_detail::well_formed());
// object_index() is exact while offset * (reciprocal's rounding error) < 2^kReciprocalShift.
static_assert(size_class_detail::max_span_bytes() * kMaxSmall <= std::size_t{1}
                                                                     << kReciprocalShift);

// (size - 1) / kGrain -> class.
inline constexpr std::array<std::uint8_t, kMaxSmall / kGrain> kClassOfSlot =
    size_class_detail::make_index();

// The slot of a request; 0 and sizes above kMaxSmall give a slot beyond the table.
constexpr std::size_t slot_of(std::size_t bytes) { return (bytes - 1) >> kGrainShift; }

// The class of a request of 1 to kMaxSmall bytes.
constexpr unsigned class_of(std::size_t bytes) { return kClassOfSlot[slot_of(bytes)]; }

// The smallest class of at least `bytes` whose objects are all aligned to `alignment` (a power of
// two), or 0 if there is none. Spans start at a page, so no class is aligned to more.
constexpr unsigned aligned_class_of(std::size_t bytes, std::size_t alignment) {
  if (alignment > kPageBytes || bytes > kMaxSmall) return 0;
  for (std::size_t n = align_up(bytes == 0 ? 1 : bytes, alignment); n <= kMaxSmall;) {
    const unsigned cls = class_of(n);
    if (kSizeClasses[cls].bytes % alignment == 0) return cls;
    n = align_up(kSizeClasses[cls].bytes + 1, alignment);
  }
  return 0;
}

// Which object of its span holds the byte at `offset` (< the span's bytes).
constexpr std::size_t object_index(const SizeClass& c, std::size_t offset) {
  return (offset * c.reciprocal) >> kReciprocalShift;
}

}  // namespace minitc
