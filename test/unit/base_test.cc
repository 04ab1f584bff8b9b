#include "core/base.h"

#include <catch2/catch.hpp>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::death;
using test::ending_of;

TEST_CASE("base: powers of two") {
  CHECK_FALSE(is_power_of_two(0));
  CHECK(is_power_of_two(1));
  CHECK(is_power_of_two(2));
  CHECK_FALSE(is_power_of_two(3));
  CHECK(is_power_of_two(std::size_t{1} << 63));
  CHECK_FALSE(is_power_of_two(SIZE_MAX));
}

TEST_CASE("base: alignment up and down") {
  CHECK(align_up(0, 16) == 0);
  CHECK(align_up(1, 16) == 16);
  CHECK(align_up(16, 16) == 16);
  CHECK(align_up(17, 1) == 17);
  CHECK(align_up(SIZE_MAX - 15, 16) == SIZE_MAX - 15);
  CHECK(align_down(0, 16) == 0);
  CHECK(align_down(15, 16) == 0);
  CHECK(align_down(31, 16) == 16);
  CHECK(align_down(SIZE_MAX, 4096) == SIZE_MAX - 4095);
}

TEST_CASE("base: bytes round up to pages, without overflow") {
  CHECK(PageCount::of_bytes(0).value == 0);
  CHECK(PageCount::of_bytes(1).value == 1);
  CHECK(PageCount::of_bytes(kPageBytes).value == 1);
  CHECK(PageCount::of_bytes(kPageBytes + 1).value == 2);
  CHECK(PageCount::of_bytes(SIZE_MAX).value == (std::size_t{1} << (64 - kPageShift)));
  CHECK(PageCount{3}.bytes() == 3 * kPageBytes);
}

TEST_CASE("base: pages and page counts add, subtract and compare") {
  PageCount count{5};
  count += PageCount{2};
  CHECK(count == PageCount{7});
  count -= PageCount{3};
  CHECK(count == PageCount{4});
  CHECK(PageCount{4} - kOnePage < PageCount{4});
  const PageId page{100};
  CHECK((page + PageCount{3}).value == 103);
  CHECK((page - PageCount{3}).value == 97);
  CHECK(PageId{107} - page == PageCount{7});
  CHECK(page < page + kOnePage);
}

TEST_CASE("base: a page knows its address, and an address its page") {
  const PageId page{0x7f00};
  CHECK(page.address() == 0x7f00 * kPageBytes);
  CHECK(PageId::of(page.ptr()) == page);
  CHECK(PageId::of(page.ptr() + kPageBytes - 1) == page);
  CHECK(PageId::of(page.ptr() + kPageBytes) == page + kOnePage);
}

TEST_CASE("base: a failed check names itself and aborts, one that holds does nothing") {
  CHECK(ending_of([] { die_of_check("core/x.cc:7: a == b"); }) ==
        death("internal error: core/x.cc:7: a == b"));
  const std::string ending = ending_of([] { MINITC_CHECK(1 + 1 == 3); });
  CHECK(ending.find("SIGABRT: libminitc: internal error: test/unit/base_test.cc:") == 0);
  CHECK(ending.find(": 1 + 1 == 3\n") != std::string::npos);
  CHECK(ending_of([] { MINITC_CHECK(1 + 1 == 2); }) == "exit 0: ");
}

TEST_CASE("base: the unit tests run with every assert in place") {
  CHECK(test::check_fails([] { MINITC_ASSERT(1 + 1 == 3); }));
}

// What other files assume of the numbers in config.h, beyond the static_asserts below them.
TEST_CASE("base: the constants fit together") {
  CHECK(kPageBytes == std::size_t{1} << kPageShift);
  CHECK(kGrain == std::size_t{1} << kGrainShift);
  CHECK(is_power_of_two(kMinAlign));
  CHECK(is_power_of_two(kMaxCachedObjects));
  CHECK(is_power_of_two(kMinCachedObjects));
  CHECK(is_power_of_two(kFirstCachedObjects));
  CHECK(kMetadataChunkBytes % kPageBytes == 0);
  CHECK(kMetadataChunkBytes >= std::size_t{1} << MetadataArena::kMaxShift);
  // The largest pointer array and the largest store of batches are blocks of the arena.
  CHECK(MetadataArena::shift_of(kMaxCachedObjects * sizeof(void*)) <= MetadataArena::kMaxShift);
  CHECK(MetadataArena::shift_of(2 * kMaxBatch * sizeof(void*)) <= MetadataArena::kMaxShift);
  // A block that is moved by remapping is a large one.
  CHECK(kMoveBytes > kMaxSmall);
}

}  // namespace
}  // namespace minitc
