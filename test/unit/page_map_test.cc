#include "core/page_map.h"

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::FakeOs;
using test::OsCall;

constexpr std::size_t kLeafPages = std::size_t{1} << kLeafShift;
constexpr std::uintptr_t kEnd = std::uintptr_t{1} << kAddressBits;

struct Map {
  Map() { map->init(os); }
  bool ensure(std::uintptr_t page, std::size_t pages) {
    if (!map->ensure(PageId{page}, PageCount{pages})) return false;
    map->include(PageId{page}, PageCount{pages});
    return true;
  }
  // An entry of each kind reads as absent.
  bool is_blank(std::uintptr_t address) const {
    return map->class_at(address) == 0 && map->span_at(PageId{address >> kPageShift}) == nullptr;
  }

  FakeOs fake;
  Os os = fake.metadata_os();
  std::unique_ptr<PageMap> map = std::make_unique<PageMap>();
};

constexpr PageCount kAllPages{kEnd >> kPageShift};

Span small_span(std::uintptr_t page, std::size_t pages) {
  return {PageId{page}, PageCount{pages}, SpanState::kSmall};
}

TEST_CASE("page map: before init nothing is covered") {
  const auto map = std::make_unique<PageMap>();
  for (unsigned bit = 0; bit < 64; ++bit) {
    CHECK_FALSE(map->covers(std::uintptr_t{1} << bit));
    CHECK(map->span_at(PageId{(std::uintptr_t{1} << bit) >> kPageShift}) == nullptr);
  }
  CHECK_FALSE(map->covers(0));
  CHECK_FALSE(map->covers(UINTPTR_MAX));
  CHECK(map->last_span_up_to(PageId{1000}, kAllPages) == nullptr);
}

TEST_CASE("page map: all addresses of 48 bits are covered and blank, no others are") {
  const Map m;
  for (const std::uintptr_t address :
       {std::uintptr_t{0}, std::uintptr_t{1} << 31, (std::uintptr_t{1} << 31) - 1,
        (std::uintptr_t{1} << 39) - 1, std::uintptr_t{1} << 39, (std::uintptr_t{1} << 47) - 1,
        std::uintptr_t{1} << 47, kEnd - 1}) {
    CAPTURE(address);
    REQUIRE(m.map->covers(address));
    CHECK(m.is_blank(address));
  }
  for (const std::uintptr_t address :
       {kEnd, kEnd + 1, std::uintptr_t{1} << 56, (std::uintptr_t{1} << 56) - 1,
        std::uintptr_t{1} << 63, UINTPTR_MAX, UINTPTR_MAX - kEnd}) {
    CAPTURE(address);
    CHECK_FALSE(m.map->covers(address));
    CHECK(m.map->span_at(PageId{address >> kPageShift}) == nullptr);
    CHECK(m.map->last_span_up_to(PageId{address >> kPageShift}, kAllPages) == nullptr);
  }
  CHECK(m.fake.calls() == 0);  // reading asks nothing of the OS
  CHECK(m.map->reserved_bytes() == 0);
}

TEST_CASE("page map: entries at the edges of leaves and of the address space are kept apart") {
  const std::uintptr_t last_page = (kEnd >> kPageShift) - 1;
  for (const std::uintptr_t edge :
       {std::uintptr_t{kLeafPages}, ((std::uintptr_t{1} << 39) >> kPageShift) + 5,
        (std::uintptr_t{1} << 47) >> kPageShift, last_page}) {
    CAPTURE(edge);
    Map m;
    REQUIRE(m.ensure(edge - 3, 4));
    Span before = small_span(edge - 3, 3);
    Span at = small_span(edge, 1);
    m.map->set_small(&before, 7);
    m.map->set_small(&at, 9);
    for (std::uintptr_t page = edge - 3; page <= edge; ++page) {
      const bool is_last = page == edge;
      for (const std::uintptr_t byte : {std::uintptr_t{0}, std::uintptr_t{kPageBytes - 1}}) {
        CHECK(m.map->class_at((page << kPageShift) + byte) == (is_last ? 9U : 7U));
      }
      CHECK(m.map->span_at(PageId{page}) == (is_last ? &at : &before));
    }
    CHECK(m.is_blank((edge - 4) << kPageShift));
    if (edge != last_page) CHECK(m.is_blank((edge + 1) << kPageShift));
    m.map->clear_small(&before);
    m.map->clear_small(&at);
    for (std::uintptr_t page = edge - 3; page <= edge; ++page) {
      CHECK(m.is_blank(page << kPageShift));
    }
  }
}

TEST_CASE("page map: goes from one registered page to the next, over leaves that are missing") {
  Map m;
  const PageId end{3 * kLeafPages};
  CHECK(m.map->next_registered(PageId{0}) >= PageId{0});
  CHECK(m.map->span_at(m.map->next_registered(PageId{0})) == nullptr);
  REQUIRE(m.ensure(5, 10));
  REQUIRE(m.ensure(2 * kLeafPages, 10));
  Span low = small_span(7, 2);
  Span high = small_span(2 * kLeafPages + 3, 1);
  CHECK(m.map->next_registered(PageId{0}) == end);
  m.map->set_small(&low, 7);
  m.map->set_small(&high, 9);
  CHECK(m.map->next_registered(PageId{0}) == PageId{7});
  CHECK(m.map->next_registered(PageId{8}) == PageId{8});
  CHECK(m.map->next_registered(PageId{9}) == high.start);
  CHECK(m.map->next_registered(PageId{kLeafPages + 20}) == high.start);
  CHECK(m.map->next_registered(high.start) == high.start);
  CHECK(m.map->next_registered(high.end()) == end);
  CHECK(m.map->next_registered(end) == end);
}

TEST_CASE("page map: room is made leaf by leaf, once, and never beyond 48 bits") {
  Map m;
  CHECK(m.ensure(kLeafPages - 1, 1));
  CHECK(m.fake.calls(OsCall::kMetadata) == 1);
  CHECK(m.ensure(5, 100));
  CHECK(m.fake.calls(OsCall::kMetadata) == 1);
  CHECK(m.ensure(kLeafPages - 1, 2));
  CHECK(m.fake.calls(OsCall::kMetadata) == 2);
  CHECK(m.ensure(0, 4 * kLeafPages));
  CHECK(m.fake.calls(OsCall::kMetadata) == 4);
  CHECK(m.map->reserved_bytes() == m.fake.metadata_bytes());

  const std::uintptr_t end = kEnd >> kPageShift;
  CHECK(m.ensure(end - 1, 1));
  CHECK_FALSE(m.ensure(end - 1, 2));
  CHECK_FALSE(m.ensure(end, 1));
  CHECK_FALSE(m.ensure((std::uintptr_t{1} << 56) >> kPageShift, 1));
  CHECK(m.map->reserved_bytes() == m.fake.metadata_bytes());
}

Map* ensured_twice = nullptr;

TEST_CASE("page map: of two threads that need a leaf one gives its own back") {
  Map m;
  ensured_twice = &m;
  // What another thread does while this one is in the kernel.
  m.fake.at_metadata([] {
    Map* const other = std::exchange(ensured_twice, nullptr);
    if (other != nullptr && other->map->ensure(PageId{5}, kOnePage)) {
      static Span span = small_span(5, 1);
      other->map->set_ends(&span);
    }
  });
  CHECK(m.ensure(10, 1));
  CHECK(m.fake.calls(OsCall::kRelease) == 1);
  CHECK(m.map->span_at(PageId{5}) != nullptr);
  CHECK(m.map->reserved_bytes() == m.fake.metadata_bytes());
}

TEST_CASE("page map: when the OS refuses room there is none, and later there is") {
  Map m;
  m.fake.fail(OsCall::kMetadata, 1);
  CHECK_FALSE(m.ensure(10, 1));
  CHECK(m.is_blank(10 << kPageShift));
  m.fake.fail(OsCall::kMetadata, 2);
  CHECK_FALSE(m.ensure(kLeafPages - 1, 2));  // one of the two leaves
  CHECK(m.is_blank((kLeafPages - 1) << kPageShift));
  CHECK(m.is_blank(kLeafPages << kPageShift));
  CHECK(m.ensure(kLeafPages - 1, 2));
  CHECK(m.fake.calls(OsCall::kMetadata) == 4);  // the leaf that was had is not asked for again
  CHECK(m.map->reserved_bytes() == m.fake.metadata_bytes());
}

TEST_CASE("page map: free and large spans are registered at their ends only", "[I4]") {
  Map m;
  REQUIRE(m.ensure(0, 100));
  Span run(PageId{10}, PageCount{5}, SpanState::kLarge);
  m.map->set_ends(&run);
  CHECK(m.map->span_at(PageId{9}) == nullptr);
  CHECK(m.map->span_at(PageId{10}) == &run);
  for (std::uintptr_t page = 11; page < 14; ++page) CHECK(m.map->span_at(PageId{page}) == nullptr);
  CHECK(m.map->span_at(PageId{14}) == &run);
  CHECK(m.map->span_at(PageId{15}) == nullptr);
  CHECK(m.map->class_at(10 << kPageShift) == 0);
  m.map->clear_ends(&run);
  CHECK(m.map->span_at(PageId{10}) == nullptr);
  CHECK(m.map->span_at(PageId{14}) == nullptr);

  Span one(PageId{20}, kOnePage, SpanState::kFree);
  m.map->set_ends(&one);
  CHECK(m.map->span_at(PageId{20}) == &one);
  m.map->clear_ends(&one);
  CHECK(m.is_blank(20 << kPageShift));
}

TEST_CASE("page map: a span that has lost its addresses leaves alone who has them now", "[I4]") {
  Map m;
  REQUIRE(m.ensure(100, 50));
  for (const auto& [page, pages] :
       {std::pair{110, 10}, {105, 10}, {115, 10}, {100, 30}, {112, 3}}) {
    CAPTURE(page, pages);
    Span lost(PageId{110}, PageCount{10}, SpanState::kLarge);
    Span other(PageId{static_cast<std::size_t>(page)}, PageCount{static_cast<std::size_t>(pages)},
               SpanState::kReturned);
    m.map->set_ends(&lost);
    m.map->set_ends(&other);
    m.map->clear_ends(&lost);
    CHECK(m.map->span_at(other.start) == &other);
    CHECK(m.map->span_at(other.end() - kOnePage) == &other);
    m.map->clear_ends(&other);
    CHECK(m.map->next_registered(PageId{100}) >= PageId{150});
  }
}

TEST_CASE("page map: the class of a span that became something else is gone", "[I4]") {
  Map m;
  REQUIRE(m.ensure(0, 100));
  Span span = small_span(10, 4);
  m.map->set_small(&span, 5);
  m.map->set_ends(&span);
  CHECK(m.map->class_at(10 << kPageShift) == 0);
  CHECK(m.map->class_at(13 << kPageShift) == 0);
}

TEST_CASE("page map: the last span up to a page is found across leaves and holes") {
  Map m;
  REQUIRE(m.ensure(5, 1));
  REQUIRE(m.ensure(3 * kLeafPages, 1));
  REQUIRE(m.ensure(7 * kLeafPages, 1));
  CHECK(m.map->last_span_up_to(PageId{8 * kLeafPages}, kAllPages) == nullptr);
  Span low = small_span(5, 1);
  Span middle(PageId{3 * kLeafPages + 10}, PageCount{20}, SpanState::kLarge);
  m.map->set_small(&low, 1);
  m.map->set_ends(&middle);
  CHECK(m.map->last_span_up_to(PageId{0}, kAllPages) == nullptr);
  CHECK(m.map->last_span_up_to(PageId{4}, kAllPages) == nullptr);
  CHECK(m.map->last_span_up_to(PageId{5}, kAllPages) == &low);
  CHECK(m.map->last_span_up_to(PageId{6}, kAllPages) == &low);
  CHECK(m.map->last_span_up_to(PageId{3 * kLeafPages + 9}, kAllPages) == &low);
  CHECK(m.map->last_span_up_to(PageId{3 * kLeafPages + 10}, kAllPages) == &middle);
  CHECK(m.map->last_span_up_to(PageId{3 * kLeafPages + 20}, kAllPages) == &middle);
  CHECK(m.map->last_span_up_to(PageId{5 * kLeafPages}, kAllPages) == &middle);
  CHECK(m.map->last_span_up_to(PageId{7 * kLeafPages + 3}, kAllPages) == &middle);
  CHECK(m.map->last_span_up_to(PageId{(kEnd >> kPageShift) - 1}, kAllPages) == &middle);
  CHECK(m.map->last_span_up_to(PageId{kEnd >> kPageShift}, kAllPages) == nullptr);
  // Only so far down.
  CHECK(m.map->last_span_up_to(PageId{14}, PageCount{10}) == &low);
  CHECK(m.map->last_span_up_to(PageId{15}, PageCount{10}) == nullptr);
  CHECK(m.map->last_span_up_to(PageId{5}, PageCount{1}) == &low);
  CHECK(m.map->last_span_up_to(PageId{5}, PageCount{0}) == nullptr);
  const std::uintptr_t end = 3 * kLeafPages + 29;
  CHECK(m.map->last_span_up_to(PageId{7 * kLeafPages + 3}, PageCount{4 * kLeafPages - 25}) ==
        &middle);
  CHECK(m.map->last_span_up_to(PageId{7 * kLeafPages + 3}, PageCount{4 * kLeafPages - 26}) ==
        nullptr);
  CHECK(m.map->last_span_up_to(PageId{end}, PageCount{1}) == &middle);
}

}  // namespace
}  // namespace minitc
