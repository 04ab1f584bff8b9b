#include "core/page_heap.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <utility>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::ending_of;
using test::FakeOs;
using test::fill;
using test::OsCall;
using test::Pages;
using test::Refused;

// Most tests below count on the first chunk to be this long.
static_assert(kMinChunkPages == 128);

std::size_t in_use(Pages& p) { return p.heap.stats().in_use.value; }
std::size_t free_pages(Pages& p) { return p.heap.stats().free.value; }
std::size_t returned(Pages& p) { return p.heap.stats().returned.value; }
std::size_t mapped(Pages& p) { return p.heap.stats().mapped.value; }

// Spans of these lengths, one after another in memory.
std::vector<Span*> row(Pages& p, std::initializer_list<std::size_t> lengths) {
  std::vector<Span*> spans;
  for (const std::size_t length : lengths) {
    Span* const span = p.large(length);
    REQUIRE(span != nullptr);
    if (!spans.empty()) REQUIRE(span->start == spans.back()->end());
    fill(span, 0xab);
    spans.push_back(span);
  }
  return spans;
}

// --- Growing and splitting ----------------------------------------------------------------------

TEST_CASE("page heap: the first span is cut from a chunk, whose rest stays returned", "[I4]") {
  Pages p;
  Span* const span = p.large(3);
  REQUIRE(span != nullptr);
  CHECK(span->state == SpanState::kLarge);
  CHECK(span->length == PageCount{3});
  CHECK(p.map->span_at(span->start) == span);
  CHECK(p.map->span_at(span->end() - kOnePage) == span);
  CHECK(p.map->class_at(span->start.address()) == 0);
  CHECK(span->zero);
  CHECK(all_zero(span->start.ptr(), span->length.bytes()));
  const PageHeapStats s = p.heap.stats();
  CHECK(s.mapped.value == kMinChunkPages);
  CHECK(s.in_use.value == 3);
  CHECK(s.large.value == 3);
  CHECK(s.large_count == 1);
  CHECK(s.returned.value == kMinChunkPages - 3);
  CHECK(s.free.value == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: every page of a small span leads to it and to its class, until freed",
          "[I4]") {
  Pages p;
  for (const unsigned cls : {1U, 40U, static_cast<unsigned>(kNumClasses - 1)}) {
    CAPTURE(cls);
    Span* const span = p.small(cls);
    REQUIRE(span != nullptr);
    const PageId start = span->start;
    const PageCount length = span->length;
    CHECK(span->state == SpanState::kSmall);
    CHECK(length.value == kSizeClasses[cls].pages);
    for (PageId page = start; page < start + length; page = page + kOnePage) {
      CHECK(p.map->span_at(page) == span);
      CHECK(p.map->class_at(page.address()) == cls);
    }
    CHECK(p.heap.stats().large == PageCount{});
    CHECK(p.adds_up());
    p.release_small(span);
    for (PageId page = start; page < start + length; page = page + kOnePage) {
      CHECK(p.map->class_at(page.address()) == 0);
    }
    CHECK(in_use(p) == 0);
    CHECK(p.adds_up());
  }
}

TEST_CASE("page heap: chunks grow with the heap, between their bounds") {
  Pages p;
  for (int i = 0; i < 60; ++i) {
    const std::size_t pages = i % 2 == 0 ? kMinChunkPages : kMinChunkPages - 27;
    const std::size_t before = mapped(p);
    const std::size_t calls = p.fake.calls(OsCall::kReserve);
    while (p.fake.calls(OsCall::kReserve) == calls) REQUIRE(p.large(pages) != nullptr);
    const std::size_t eighth = std::min(before / 8, kMaxChunkPages);
    CHECK(p.fake.last_reserve_bytes() ==
          kPageBytes * std::max(eighth / pages * pages, kMinChunkPages));
  }
  REQUIRE(p.large(8 * kMaxChunkPages) != nullptr);
  REQUIRE(p.large(kMaxChunkPages) != nullptr);
  CHECK(p.fake.last_reserve_bytes() == kPageBytes * kMaxChunkPages);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: when the OS refuses a large chunk, less is asked for, down to the need") {
  Pages p;
  REQUIRE(p.large(8 * kMaxChunkPages) != nullptr);  // the next chunk would be of kMaxChunkPages
  const std::size_t before = mapped(p);
  p.fake.refuse_above(PageCount{59}.bytes());
  CHECK(p.large(60) == nullptr);
  CHECK(mapped(p) == before);
  p.fake.refuse_above(PageCount{60}.bytes());
  Span* const exact = p.large(60);
  REQUIRE(exact != nullptr);
  CHECK(mapped(p) == before + 60);
  p.fake.refuse_above(PageCount{1000}.bytes());
  CHECK(p.large(60) != nullptr);
  const std::size_t more = mapped(p) - before - 60;
  CHECK(more >= 500);  // less than half of what is allowed would be stingy
  CHECK(more <= 1000);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: lists all spans in order of address, some at a time", "[I4]") {
  Pages p(4096, 0, FakeOs::Layout::kHoles);
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < 40; ++i) {
    spans.push_back(i % 2 == 0 ? p.small(1 + i) : p.large(1 + i * 3));
  }
  p.release(spans[1]);
  p.release(spans[3]);
  p.release_small(spans[4]);
  PageCount sums[6];
  std::size_t small = 0;
  PageId from;
  PageId last;
  for (;;) {
    SpanView views[7];
    std::size_t count = 7;
    REQUIRE(p.heap.list_spans(from, views, count) == nullptr);
    if (count == 0) break;
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(views[i].start >= last);
      last = views[i].start + views[i].length;
      sums[static_cast<std::size_t>(views[i].state)] += views[i].length;
      CHECK((views[i].cls != 0) == (views[i].state == SpanState::kSmall));
      small += views[i].cls != 0 ? 1 : 0;
    }
    CHECK(from >= last);
  }
  const PageHeapStats s = p.heap.stats();
  const auto sum = [&](SpanState state) { return sums[static_cast<std::size_t>(state)]; };
  CHECK(small == 19);
  CHECK(sum(SpanState::kLarge) == s.large);
  CHECK(sum(SpanState::kSmall) + s.large == s.in_use);
  CHECK(sum(SpanState::kFree) + sum(SpanState::kKept) == s.free);
  CHECK(sum(SpanState::kReturned) == s.returned);

  // Reaches into its neighbour, or is not where the map has it.
  const auto lists_all = [&] {
    PageId at;
    SpanView views[200];
    std::size_t count = 200;
    return p.heap.list_spans(at, views, count) == nullptr;
  };
  CHECK(lists_all());
  spans[5]->length += kOnePage;
  CHECK_FALSE(lists_all());
  spans[5]->length -= kOnePage;
  spans[6]->start = spans[6]->start + kOnePage;
  CHECK_FALSE(lists_all());
  spans[6]->start = spans[6]->start - kOnePage;
  CHECK(lists_all());
}

TEST_CASE("page heap: spans that became one while they were listed are passed over", "[I4]") {
  Pages p;
  Span* const first = p.large(3);
  Span* const second = p.large(20);
  Span* const last = p.large(5);
  REQUIRE((second->start == first->end() && last->start == second->end()));
  const PageId end = second->end();
  PageId from;
  SpanView views[2];
  std::size_t count = 1;
  REQUIRE(p.heap.list_spans(from, views, count) == nullptr);
  CHECK(from == second->start);
  p.release(first);
  p.release(second);
  count = 2;
  CHECK(p.heap.list_spans(from, views, count) == nullptr);
  REQUIRE(count == 2);
  CHECK(views[0].start == end);
}

TEST_CASE("page heap: neighbouring chunks become one run, on both sides", "[I5]") {
  const auto layout = GENERATE(FakeOs::Layout::kRising, FakeOs::Layout::kFalling);
  Pages p(4096, 0, layout);
  Span* const first = p.large(kMinChunkPages);
  Span* const second = p.large(kMinChunkPages);
  REQUIRE(std::max(first->start, second->start) ==
          std::min(first->start, second->start) + PageCount{kMinChunkPages});
  const PageId low = std::min(first->start, second->start);
  p.release(first);
  p.release(second);
  CHECK(p.adds_up());
  Span* const both = p.large(2 * kMinChunkPages);
  REQUIRE(both != nullptr);
  CHECK(both->start == low);
  CHECK(mapped(p) == 2 * kMinChunkPages);
}

TEST_CASE("page heap: chunks with a hole between them stay apart", "[I4]") {
  Pages p(4096, 0, FakeOs::Layout::kHoles);
  Span* const first = p.large(kMinChunkPages);
  Span* const second = p.large(kMinChunkPages);
  const PageId hole = first->end();
  CHECK(second->start > hole);
  p.release(first);
  p.release(second);
  CHECK(p.adds_up());
  CHECK(p.heap.find(hole.ptr()).verdict == Verdict::kForeign);
  CHECK(p.large(2 * kMinChunkPages) != nullptr);
  CHECK(mapped(p) == 4 * kMinChunkPages);
}

// --- Best fit and coalescing --------------------------------------------------------------------

TEST_CASE("page heap: the shortest free run that fits is taken", "[I3]") {
  Pages p;
  const auto r = row(p, {2, 1, 9, 1, 5, 1, 3, 1});
  const auto long_runs = row(p, {200, 1, 130, 1});
  const std::vector<PageId> starts = {r[0]->start, r[2]->start, r[4]->start, long_runs[0]->start,
                                      long_runs[2]->start};
  for (Span* const span : {r[0], r[2], r[4], long_runs[0], long_runs[2]}) p.release(span);
  CHECK(p.adds_up());
  CHECK(p.large(4)->start == starts[2]);
  CHECK(p.large(6)->start == starts[1]);
  CHECK(p.large(2)->start == starts[0]);
  CHECK(p.large(129)->start == starts[4]);
  CHECK(p.large(131)->start == starts[3]);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: committed runs are taken before returned ones", "[I3]") {
  Pages p;
  const auto r = row(p, {4, 1, 20, 1});
  const PageId fits = r[0]->start;
  const PageId loose = r[2]->start;
  p.release(r[0]);
  p.heap.trim();
  p.release(r[2]);
  Span* const first = p.large(4);
  CHECK(first->start == loose);
  CHECK_FALSE(first->zero);
  CHECK(p.large(17)->zero);  // the committed rest of 16 does not do
  CHECK(p.large(4)->start == loose + PageCount{4});
  CHECK(p.large(12)->zero == false);
  CHECK(p.large(4)->start == fits);
}

TEST_CASE("page heap: freed neighbours become one run, in whatever order they are freed", "[I5]") {
  std::array<std::size_t, 3> order = {0, 1, 2};
  do {
    CAPTURE(order);
    Pages p;
    const auto r = row(p, {1, 3, 4, 5, 1});
    const PageId start = r[1]->start;
    for (const std::size_t i : order) {
      p.release(r[1 + i]);
      CHECK(p.adds_up());
    }
    CHECK(free_pages(p) == 12);
    Span* const whole = p.large(12);
    CHECK(whole->start == start);
    CHECK(free_pages(p) == 0);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("page heap: the pages inside a run that became one lead nowhere", "[I4]") {
  Pages p;
  const auto r = row(p, {1, 3, 4, 5, 1});
  const PageId start = r[1]->start;
  for (const std::size_t i : {1, 3, 2}) p.release(r[i]);
  for (std::size_t i = 1; i < 11; ++i) CHECK(p.map->span_at(start + PageCount{i}) == nullptr);
  CHECK(p.map->span_at(start) != nullptr);
  CHECK(p.map->span_at(start) == p.map->span_at(start + PageCount{11}));
}

TEST_CASE("page heap: free and returned neighbours stay apart until both are returned", "[I5]") {
  Pages p;
  const auto r = row(p, {3, 4, 1});
  const PageId start = r[0]->start;
  p.release(r[0]);
  p.heap.trim();
  p.release(r[1]);
  CHECK(p.adds_up());
  CHECK(free_pages(p) == 4);
  p.heap.trim();
  CHECK(p.adds_up());
  CHECK(p.large(7)->start == start);
}

TEST_CASE("page heap: when only free and returned pages together suffice, they are joined") {
  Pages p;
  const auto r = row(p, {98, 30});
  const PageId start = r[0]->start;
  p.release(r[0]);
  p.heap.trim();
  p.release(r[1]);
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  Span* const all = p.large(128);
  REQUIRE(all != nullptr);
  CHECK(all->start == start);
  CHECK(all->zero);
  CHECK(all_zero(all->start.ptr(), all->length.bytes()));
  p.release(all);
  Span* const small = p.small(20);
  CHECK(small != nullptr);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: one span that can be joined is enough, though more were wanted") {
  unsigned cls = 1;
  while (kSizeClasses[cls].pages < 3) ++cls;
  const std::size_t each = kSizeClasses[cls].pages;
  Pages p;
  const auto r = row(p, {kMinChunkPages - each, 1, each - 1});
  p.release(r[1]);
  p.heap.trim();
  p.release(r[2]);
  SpanList spans = p.heap.acquire_small(cls, 4);
  REQUIRE(spans.front() != nullptr);
  CHECK(spans.front() == spans.back());
  CHECK(p.fake.calls(OsCall::kReserve) == 1);
  p.heap.release_small(spans);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a request takes the longest committed run and returned pages beside it",
          "[I5][I6]") {
  // The lengths of five neighbours, and which of them are returned or free.
  const auto [lengths, returned_ones, free_one, wanted] =
      GENERATE(table<std::array<std::size_t, 5>, std::array<bool, 5>, std::size_t, std::size_t>(
          {{{20, 30, 20, 20, 38}, {false, false, true, false, false}, 1, 45},    // behind it
           {{20, 20, 30, 20, 38}, {false, true, false, false, false}, 2, 45},    // before it
           {{14, 20, 40, 20, 34}, {false, true, false, true, false}, 2, 65},     // on both sides
           {{14, 20, 40, 20, 34}, {false, true, false, true, false}, 2, 80}}));  // all of it
  Pages p;
  std::vector<Span*> spans;
  for (const std::size_t length : lengths) spans.push_back(p.large(length));
  for (Span* const span : spans) fill(span, 0xab);
  for (std::size_t i = 0; i < 5; ++i) {
    if (returned_ones[i]) p.release(spans[i]);
  }
  p.heap.trim();
  const Span committed = *spans[free_one];
  p.release(spans[free_one]);
  const std::size_t reserves = p.fake.calls(OsCall::kReserve);
  const std::size_t before = returned(p);
  Span* const span = p.large(wanted);
  REQUIRE(span != nullptr);
  CHECK(span->start <= committed.start);
  CHECK(span->end() >= committed.end());
  CHECK_FALSE(span->zero);
  CHECK(free_pages(p) == 0);
  CHECK(returned(p) == before - (wanted - committed.length.value));
  CHECK(p.fake.calls(OsCall::kReserve) == reserves);
  fill(span, 0xcd);
  CHECK(p.adds_up());
  p.release(span);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a committed run that lacks more than half is left alone") {
  Pages p;
  const auto r = row(p, {60, 20, 48});
  p.release(r[0]);
  p.heap.trim();
  p.release(r[1]);
  Span* const span = p.large(50);
  REQUIRE(span != nullptr);
  CHECK(span->zero);
  CHECK(free_pages(p) == 20);
}

TEST_CASE("page heap: without metadata for a rest nothing is joined, and nothing is lost", "[I4]") {
  Pages p;
  const auto r = row(p, {20, 30, 78});
  p.release(r[0]);
  p.heap.trim();
  p.release(r[1]);
  p.exhaust_metadata();
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  Span* const span = p.large(40);
  CHECK((span == nullptr || span->length.value == 40));
  CHECK(p.adds_up());
}

// Cutting what is before it needs a description, and with that pages for metadata.
TEST_CASE("page heap: what is joined on both sides does not become metadata meanwhile", "[I4]") {
  const std::size_t donated = PageCount::of_bytes(kMetadataChunkBytes).value;
  const auto [after, elsewhere] = GENERATE(table<std::size_t, bool>({{0, false}, {1, true}}));
  Pages p;
  const auto r = row(p, {30, 30, donated + after, 1, 67 - donated - after});
  p.release(r[0]);
  p.release(r[2]);
  if (elsewhere) p.release(r[4]);
  p.heap.trim();
  p.release(r[1]);
  p.exhaust_metadata();
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  Span* const span = p.large(30 + donated + after + 10);
  REQUIRE(span != nullptr);
  fill(span, 0xcd);
  CHECK(p.donated_bytes() == (elsewhere ? kMetadataChunkBytes : 0));
  CHECK(p.adds_up());
}

// --- Small spans --------------------------------------------------------------------------------

TEST_CASE("page heap: small spans that are asked for together are neighbours", "[I4]") {
  Pages p;
  const unsigned cls = GENERATE(1U, 40U, static_cast<unsigned>(kNumClasses - 1));
  SpanList spans = p.heap.acquire_small(cls, 3);
  PageId end{};
  std::size_t count = 0;
  for (const Span* span = spans.front(); span != nullptr; span = span->next) {
    CHECK(span->state == SpanState::kSmall);
    CHECK(span->length.value == kSizeClasses[cls].pages);
    CHECK(p.map->class_at(span->start.address()) == cls);
    if (count++ != 0) CHECK(span->end() == end);  // the highest comes first
    end = span->start;
  }
  CHECK(count == 3);
  CHECK(in_use(p) == 3 * kSizeClasses[cls].pages);
  CHECK(p.adds_up());
  p.heap.release_small(spans);
  CHECK(spans.empty());
  CHECK(in_use(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: fewer small spans that are committed come before all that were asked for") {
  Pages p;
  const auto r = row(p, {3, 1, 1, 1});
  p.release(r[0]);
  p.release(r[2]);
  SpanList one = p.heap.acquire_small(1, 8);  // the run of one page is the shortest
  CHECK(one.pop() != nullptr);
  CHECK(one.empty());
  SpanList three = p.heap.acquire_small(1, 8);
  std::size_t count = 0;
  while (three.pop() != nullptr) ++count;
  CHECK(count == 3);
  CHECK(free_pages(p) == 0);
}

TEST_CASE("page heap: with no metadata for all of them, as many small spans as there is for",
          "[I4]") {
  Pages p;
  const auto r = row(p, {8, 120});
  p.release(r[0]);
  p.exhaust_metadata();
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  SpanList spans = p.heap.acquire_small(1, 8);
  CHECK(p.adds_up());
  p.heap.release_small(spans);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a free small span is held back for its class", "[I3]") {
  Pages p;
  const auto r = row(p, {1, 1, 1, 1, 1});
  SpanList spans = p.heap.acquire_small(1, 2);
  Span* const first = spans.pop();
  Span* const second = spans.pop();
  p.release_small(second);
  p.release(r[1]);
  p.release(r[3]);
  CHECK(second->state == SpanState::kKept);
  CHECK(p.map->class_at(second->start.address()) == 0);
  CHECK(free_pages(p) == 3);
  CHECK(p.adds_up());
  Span* const other = p.small(40);  // has its class's length, not that of what is held back
  CHECK(other != second);
  CHECK(p.small(1) == second);
  CHECK_FALSE(second->zero);
  p.release_small(first);
  p.release_small(second);
  p.release_small(other);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what is held back is dissolved before the heap grows") {
  Pages p;
  SpanList spans = p.heap.acquire_small(1, kMinChunkPages);
  REQUIRE(mapped(p) == kMinChunkPages);
  p.heap.release_small(spans);
  CHECK(free_pages(p) == kMinChunkPages);
  SECTION("for a large block") { CHECK(p.large(kMinChunkPages) != nullptr); }
  SECTION("for another class") { CHECK(p.small(kNumClasses - 1) != nullptr); }
  SECTION("for the arena") {
    CHECK(p.heap.feed_arena());
    CHECK(mapped(p) == kMinChunkPages - PageCount::of_bytes(kMetadataChunkBytes).value);
    CHECK(p.adds_up());
    return;
  }
  CHECK(mapped(p) == kMinChunkPages);
  CHECK(p.adds_up());
}

// What is split is in no index meanwhile; a neighbour that is dissolved must not be joined with it.
TEST_CASE("page heap: a split that finds no metadata leaves alone what is held back", "[I3]") {
  Pages p;
  Span* const large = p.large(40);
  SpanList spans = p.heap.acquire_small(1, kMinChunkPages - 40);
  p.release(large);
  p.heap.release_small(spans);
  p.exhaust_metadata();
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  Span* const span = p.large(30);
  CHECK(p.adds_up());
  if (span != nullptr) p.release(span);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: trim returns what is held back") {
  Pages p;
  SpanList spans = p.heap.acquire_small(1, 50);
  p.heap.release_small(spans);
  CHECK(p.heap.trim() == PageCount{50}.bytes());
  CHECK(returned(p) == kMinChunkPages);
  CHECK(p.adds_up());
}

// --- Alignment ----------------------------------------------------------------------------------

TEST_CASE("page heap: spans are aligned, and what is cut off stays in the heap", "[I4]") {
  Pages p;
  REQUIRE(p.large(1) != nullptr);  // or all would be aligned from the start
  std::vector<Span*> spans;
  for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
    for (const std::size_t pages : {1UL, 3UL, 40UL}) {
      CAPTURE(alignment, pages);
      Span* const span = p.large(pages, alignment);
      REQUIRE(span != nullptr);
      CHECK(span->start.value % alignment == 0);
      CHECK(span->length.value == pages);
      CHECK(p.adds_up());
      spans.push_back(span);
    }
  }
  for (Span* const span : spans) CHECK(p.release(span));
  CHECK(in_use(p) == 1);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a run that is just long enough for any alignment does", "[I4]") {
  Pages p;
  p.fake.refuse_above(PageCount{128}.bytes());
  CHECK(p.large(65, 64) != nullptr);  // 65 + 63 pages
  CHECK(p.large(66, 64) == nullptr);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what an aligned span leaves serves the next of its kind", "[I4]") {
  Pages p;
  std::vector<Span*> spans;
  for (int i = 0; i < 100; ++i) spans.push_back(p.large(8, 8));
  const std::size_t before = mapped(p);
  const bool is_returned = GENERATE(false, true);
  for (std::size_t i = 0; i < spans.size(); i += 2) p.release(spans[i]);
  if (is_returned) p.heap.trim();
  for (std::size_t i = 0; i < spans.size(); i += 2) {
    spans[i] = p.large(8, 8);
    REQUIRE(spans[i] != nullptr);
    CHECK(spans[i]->start.value % 8 == 0);
  }
  CHECK(mapped(p) == before);
  CHECK(p.adds_up());
}

// Only so many are looked at, or a request would take as long as there are free runs; but all, when
// there is no other way.
TEST_CASE("page heap: an aligned span takes a run that lies well, though shorter ones do not") {
  const bool is_returned = GENERATE(false, true);
  const bool is_last = GENERATE(false, true);
  const std::size_t ill = GENERATE(kAlignedLooks - 1, kAlignedLooks);
  CAPTURE(is_returned, is_last, ill);
  Pages p;
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < ill; ++i) {
    for (const std::size_t pages : {1U, 9U, 6U}) spans.push_back(p.large(pages));
  }
  for (const std::size_t pages : {6U, 10U, 1U}) spans.push_back(p.large(pages));
  REQUIRE(spans.front()->start.value % 16 == 0);
  REQUIRE(spans.back()->end() == spans.front()->start + PageCount{16 * ill + 17});
  const PageId well = spans.back()->start - PageCount{8};
  if (is_last) {
    p.fake.fail(OsCall::kReserve, 1, test::kAlways);
    while (p.large(1) != nullptr) {
    }
  }
  for (std::size_t i = 1; i < spans.size(); i += 3) p.release(spans[i]);
  if (is_returned) p.heap.trim();
  Span* const taken = p.large(8, 8);
  REQUIRE(taken != nullptr);
  CHECK(taken->start.value % 8 == 0);
  CHECK((taken->start == well) == (is_last || ill < kAlignedLooks));
  CHECK(p.adds_up());
}

// --- Resizing in place --------------------------------------------------------------------------

TEST_CASE("page heap: a large span grows into what is free behind it, and no further", "[I4]") {
  const bool is_returned = GENERATE(false, true);
  CAPTURE(is_returned);
  Pages p;
  const auto r = row(p, {4, 6, 1});
  p.release(r[1]);
  if (is_returned) p.heap.trim();
  Span* const span = r[0];
  CHECK(p.heap.resize_in_place(span, PageCount{7}));
  CHECK(span->length == PageCount{7});
  CHECK(p.map->span_at(span->start + PageCount{6}) == span);
  for (std::size_t i = 1; i < 6; ++i) CHECK(p.map->span_at(span->start + PageCount{i}) == nullptr);
  CHECK(in_use(p) == 8);
  CHECK(p.heap.stats().large.value == 8);
  CHECK(p.heap.stats().large_count == 2);
  CHECK(p.adds_up());

  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{11}));
  CHECK(span->length == PageCount{7});
  CHECK(p.heap.resize_in_place(span, PageCount{10}));
  CHECK(p.adds_up());
  CHECK(span->end() == r[2]->start);
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{11}));
  CHECK(p.heap.resize_in_place(span, PageCount{10}));
  CHECK(p.heap.stats().peak.value == 11);
  CHECK(p.release(span));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a large span does not grow over the end of its chunk") {
  Pages p(4096, 0, FakeOs::Layout::kHoles);
  Span* const span = p.large(kMinChunkPages - 1);
  CHECK(p.heap.resize_in_place(span, PageCount{kMinChunkPages}));
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{kMinChunkPages + 1}));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a large span shrinks, and its tail is free", "[I5]") {
  Pages p;
  const auto r = row(p, {10, 2, 1});
  p.release(r[1]);
  Span* const span = r[0];
  CHECK(p.heap.resize_in_place(span, PageCount{4}));
  CHECK(span->length == PageCount{4});
  CHECK(p.map->span_at(span->start + PageCount{3}) == span);
  CHECK(free_pages(p) == 8);
  CHECK(p.heap.stats().large.value == 5);
  CHECK(p.heap.stats().large_count == 2);
  CHECK(all_bytes_are(span->start.ptr(), span->length.bytes(), 0xab));
  CHECK(p.adds_up());
  CHECK(p.large(8)->start == span->end());
}

TEST_CASE("page heap: resizing needs no metadata for whole runs and fails clean without", "[I4]") {
  Pages p;
  const auto r = row(p, {4, 6, 118});  // no free run is long enough to become metadata
  Span* const span = r[0];
  p.release(r[1]);
  p.exhaust_metadata();
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{7}));
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{3}));
  CHECK(span->length == PageCount{4});
  CHECK(free_pages(p) == 6);
  CHECK(p.adds_up());
  CHECK(p.heap.resize_in_place(span, PageCount{10}));
  CHECK(p.adds_up());
}

// --- Moving pages -------------------------------------------------------------------------------

bool move(Pages& p, Span* from, Span* to) {
  bool lost = false;
  const bool done = p.heap.move_pages(from, to, lost);
  REQUIRE_FALSE((done && lost));
  return done;
}

TEST_CASE("page heap: moved pages take their contents along and leave zeros", "[I6]") {
  Pages p;
  const auto r = row(p, {4, 1, 6, 1});
  const PageId from = r[0]->start;
  fill(r[0], 0x11);
  CHECK(move(p, r[0], r[2]));
  CHECK(all_bytes_are(r[2]->start.ptr(), PageCount{4}.bytes(), 0x11));
  CHECK(in_use(p) == 8);
  CHECK(p.heap.stats().large.value == 8);
  CHECK(p.heap.stats().large_count == 3);
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
  Span* const again = p.large(4);
  CHECK(again->start == from);
  CHECK(again->zero);
  CHECK(all_zero(again->start.ptr(), again->length.bytes()));
}

TEST_CASE("page heap: a refused move changes nothing but the target's contents") {
  Pages p;
  const auto r = row(p, {4, 1, 6, 1});
  p.fake.fail(OsCall::kMove, 1);
  CHECK_FALSE(move(p, r[0], r[2]));
  CHECK(all_bytes_are(r[0]->start.ptr(), r[0]->length.bytes(), 0xab));
  CHECK(in_use(p) == 12);
  CHECK(p.heap.stats().large_count == 4);
  CHECK(p.adds_up());
  CHECK(p.release(r[2]));
  CHECK(p.release(r[0]));
  CHECK(p.adds_up());
}

// Another thread whose blocks come to lie on addresses that a move loses, before who moved has the
// lock.
struct Neighbour {
  explicit Neighbour(Pages& p) : pages(&p) {
    current = this;
    p.fake.at_loss([](void* start, std::size_t bytes) {
      Neighbour& self = *current;
      self.pages->fake.refuse_above(bytes);
      do {
        self.blocks.push_back(self.pages->large(bytes / kPageBytes));
        self.taken += bytes / kPageBytes;
      } while (self.blocks.back()->start.ptr() != start);
      self.pages->fake.stop_failing();
    });
  }
  bool has_them_all() const {
    return std::all_of(blocks.begin(), blocks.end(), [this](Span* block) {
      return pages->map->span_at(block->start) == block &&
             pages->map->span_at(block->end() - kOnePage) == block;
    });
  }
  bool releases_them_all() const {
    return std::all_of(blocks.begin(), blocks.end(),
                       [this](Span* block) { return pages->release(block); });
  }
  static inline Neighbour* current;
  Pages* pages;
  std::vector<Span*> blocks;
  std::size_t taken = 0;
};

TEST_CASE("page heap: addresses that a move loses may be another's at once", "[I4]") {
  const bool loses_target = GENERATE(false, true);
  CAPTURE(loses_target);
  Pages p;
  const auto r = row(p, {4, 1, 6, 1});
  Neighbour other(p);
  p.fake.fail(OsCall::kMove, 1);
  p.fake.failed_move_is(loses_target ? Move::kTargetLost : Move::kSourceLost);
  bool lost = false;
  CHECK(p.heap.move_pages(r[0], r[2], lost) != loses_target);
  REQUIRE(other.taken != 0);
  CHECK(other.has_them_all());
  CHECK(in_use(p) == (loses_target ? 6 : 8) + other.taken);
  CHECK(p.adds_up());
  CHECK(other.releases_them_all());
  CHECK(p.adds_up());
}

TEST_CASE("page heap: addresses that a move loses are not the heap's any more", "[I4]") {
  const bool loses_target = GENERATE(false, true);
  CAPTURE(loses_target);
  Pages p;
  const auto r = row(p, {4, 1, 6, 1});
  const PageId from = r[0]->start;
  const PageId to = r[2]->start;
  const PageId gone = loses_target ? to : from;
  p.fake.fail(OsCall::kMove, 1);
  p.fake.failed_move_is(loses_target ? Move::kTargetLost : Move::kSourceLost);
  bool lost = false;
  CHECK(p.heap.move_pages(r[0], r[2], lost) != loses_target);
  CHECK(lost == loses_target);
  CHECK(mapped(p) == kMinChunkPages - (loses_target ? 6 : 4));
  CHECK(in_use(p) == (loses_target ? 6 : 8));
  CHECK(p.heap.stats().large_count == 3);
  CHECK(p.adds_up());
  const PageId kept = loses_target ? from : to;
  CHECK(all_bytes_are(kept.ptr(), PageCount{4}.bytes(), 0xab));
  CHECK(p.heap.find(gone.ptr()).verdict == Verdict::kForeign);
  CHECK(p.heap.find((gone + PageCount{3}).ptr()).verdict == Verdict::kForeign);

  CHECK(p.heap.release_large(kept.ptr()).verdict == Verdict::kLive);
  CHECK(p.release(r[1]));
  CHECK(p.release(r[3]));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what is not whole kernel pages is not moved") {
  Pages p(64 * 1024);
  const auto r = row(p, {8, 16, 4, 4, 8, 8, 12, 4, 4, 16});
  CHECK_FALSE(move(p, r[8], r[1]));  // half of one
  CHECK_FALSE(move(p, r[4], r[6]));  // would be followed by half of one
  Span* const crooked = r[6];        // ends in the middle of one
  CHECK_FALSE(move(p, crooked, r[9]));
  CHECK(p.fake.calls(OsCall::kMove) == 0);
  CHECK(move(p, r[0], r[1]));
  CHECK(p.adds_up());
}

// A run of moved pages joins no other, and gives its mapping up with its pages.
TEST_CASE("page heap: a span of moved pages is renewed when it is returned", "[I6]") {
  const bool refused = GENERATE(false, true);
  Pages p;
  const auto r = row(p, {4, 1, 6, 1});
  REQUIRE(move(p, r[0], r[2]));
  const PageId start = r[2]->start;
  fill(r[2], 0xcd);
  CHECK(p.release(r[2]));
  CHECK(p.release(r[1]));
  CHECK(p.release(r[3]));
  CHECK(free_pages(p) == 8);
  CHECK(p.large(5)->start == start);  // not of seven or eight
  CHECK(p.release(p.map->span_at(start)));
  CHECK(free_pages(p) == 8);
  CHECK(p.adds_up());
  if (refused) p.fake.fail(OsCall::kRenew, 1);
  p.heap.trim();
  CHECK(p.fake.calls(OsCall::kRenew) == 1);
  CHECK(p.fake.calls(OsCall::kDecommit) == (refused ? 3 : 2));
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
  p.heap.trim();
  CHECK(p.fake.calls(OsCall::kRenew) == 1);   // once is enough
  Span* const all = p.large(kMinChunkPages);  // they have joined
  CHECK(p.fake.calls(OsCall::kReserve) == 1);
  CHECK(all_zero(all->start.ptr(), all->length.bytes()));
  CHECK(p.adds_up());
}

// The donated pages lie between two parts of one mapping.
TEST_CASE("page heap: moved pages that become metadata are counted out") {
  Pages p;
  const auto r = row(p, {40, 60, 1});
  REQUIRE(move(p, r[0], r[1]));
  CHECK(p.release(r[1]));
  Span* const front = p.large(10);
  REQUIRE(front->mapping != 0);
  REQUIRE(p.heap.feed_arena());
  CHECK(p.release(front));
  p.heap.trim();
  CHECK(p.adds_up());
  Span* const from = p.large(40);
  CHECK(move(p, from, p.large(60)));
}

TEST_CASE("page heap: what a move leaves and what is renewed is as huge as the user wants it") {
  Pages p(Options{.huge_pages = Options::kYes});
  const auto r = row(p, {40, 60, 1});
  const std::size_t before = p.fake.huge_bytes(true);
  REQUIRE(before == p.fake.mapped_bytes());
  REQUIRE(move(p, r[0], r[1]));
  CHECK(p.fake.huge_bytes(true) == before + PageCount{40}.bytes());
  CHECK(p.release(r[1]));
  p.heap.trim();
  CHECK(p.fake.huge_bytes(true) == before + PageCount{40 + 60}.bytes());
  p.fake.fail(OsCall::kMove, 1);
  Span* const from = p.large(40);
  CHECK_FALSE(move(p, from, p.large(60)));
  CHECK(p.fake.huge_bytes(true) == before + PageCount{40 + 60 + 60}.bytes());
}

TEST_CASE("page heap: renewing a span of moved pages spares what was cut off it", "[I6]") {
  const std::size_t kernel_page = GENERATE(4096, 16 * 1024, 64 * 1024);
  CAPTURE(kernel_page);
  Pages p(kernel_page);
  const auto r = row(p, {8, 16, 8});
  REQUIRE(move(p, r[0], r[1]));
  Span* const span = r[1];
  fill(span, 0xcd);
  REQUIRE(p.heap.resize_in_place(span, PageCount{3}));
  Span* const tail = p.large(13);
  REQUIRE(tail->start == span->end());
  fill(tail, 0xef);
  CHECK(p.release(span));
  p.heap.trim();
  CHECK(all_bytes_are(tail->start.ptr(), tail->length.bytes(), 0xef));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a span grows within a mapping of moved pages, not beyond, and moves on",
          "[I6]") {
  Pages p;
  const auto r = row(p, {8, 1, 20, 30, 60});
  REQUIRE(move(p, r[0], r[2]));
  const PageId start = r[2]->start;
  CHECK(p.release(r[2]));
  CHECK(p.release(r[3]));
  Span* const span = p.large(6);
  REQUIRE(span->start == start);
  fill(span, 0x13);
  CHECK(p.heap.resize_in_place(span, PageCount{20}));
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{21}));
  CHECK(p.adds_up());
  CHECK(move(p, span, r[4]));
  CHECK(p.fake.calls(OsCall::kMove) == 2);
  CHECK(all_bytes_are(r[4]->start.ptr(), PageCount{6}.bytes(), 0x13));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: small spans are cut from moved pages, which stay such", "[I6]") {
  Pages p;
  const auto r = row(p, {40, 1, 41, 46});
  REQUIRE(move(p, r[0], r[2]));
  CHECK(p.release(r[2]));
  for (int round = 0; round < 2; ++round) {
    std::vector<Span*> spans;
    for (const unsigned cls : {1U, 1U, 50U}) spans.push_back(p.small(cls));
    for (Span* const span : spans) {
      CHECK(span->mapping == r[2]->mapping);
      fill(span, 0x12);
      p.release_small(span);
    }
    CHECK(p.adds_up());
  }
  CHECK(p.release(r[1]));
  p.heap.trim();
  CHECK(p.fake.calls(OsCall::kRenew) > 0);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);  // of r[1]
  CHECK(free_pages(p) == 0);
  CHECK(p.large(82)->start == r[3]->start - PageCount{82});
  CHECK(p.adds_up());
}

TEST_CASE("page heap: only so many runs at a time are of moved pages, for the mappings' sake") {
  Pages p;
  std::vector<Span*> moved;
  for (; moved.size() <= kMaxMoved; moved.push_back(p.large(2))) {
    if (!moved.empty() && !move(p, p.large(1), moved.back())) break;
  }
  CHECK(p.fake.calls(OsCall::kMove) == kMaxMoved);
  CHECK(moved.size() == kMaxMoved + 1);
  p.release(moved[5]);
  p.heap.trim();
  CHECK(move(p, p.large(1), moved.back()));
  CHECK_FALSE(move(p, p.large(1), p.large(2)));
  // One that moves on leaves its place to itself.
  CHECK(p.fake.calls(OsCall::kMove) == kMaxMoved + 1);
  CHECK(p.adds_up());
}

// --- Return to the OS ---------------------------------------------------------------------------

TEST_CASE("page heap: free runs above the bound are returned at once and whole", "[I6]") {
  Pages p(4096, PageCount{64}.bytes());
  const auto r = row(p, {32, 1, 32, 1, 20, 1});
  const PageId start = r[2]->start;
  const std::size_t fresh = returned(p);
  p.release(r[4]);
  p.release(r[2]);
  CHECK(p.fake.calls(OsCall::kDecommit) == 0);
  CHECK(free_pages(p) == 52);
  p.release(r[0]);  // 84 are free: of the longest the oldest goes
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  CHECK(p.fake.decommitted_bytes() == PageCount{32}.bytes());
  CHECK(free_pages(p) == 52);
  CHECK(returned(p) == fresh + 32);
  CHECK(p.heap.stats().runs_returned == 1);
  CHECK(p.adds_up());

  REQUIRE(p.large(32) != nullptr);  // the committed one
  Span* const again = p.large(32);
  CHECK(again->start == start);
  CHECK(again->zero);
  CHECK(all_zero(again->start.ptr(), again->length.bytes()));
}

TEST_CASE("page heap: free pages that are just the bound stay") {
  Pages p(4096, PageCount{64}.bytes());
  const auto r = row(p, {64, 1, 1, 1});
  p.release(r[0]);
  CHECK(free_pages(p) == 64);
  CHECK(p.fake.calls(OsCall::kDecommit) == 0);
  p.release(r[2]);
  CHECK(free_pages(p) == 1);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
}

TEST_CASE("page heap: spans of small objects count towards the bound too") {
  Pages p(4096, PageCount{8}.bytes());
  std::vector<Span*> spans;
  for (int i = 0; i < 32; ++i) spans.push_back(p.small(1));
  for (Span* const span : spans) p.release_small(span);
  CHECK(free_pages(p) <= 8);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: shrinking in place keeps to the bound") {
  Pages p(4096, PageCount{64}.bytes());
  const auto r = row(p, {500, 1});
  CHECK(p.heap.resize_in_place(r[0], PageCount{10}));
  CHECK(free_pages(p) <= 64);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: without an option the bound is a constant or an eighth of what is in use") {
  Pages p;
  constexpr std::size_t kLeast = kMinFreeBound / kPageBytes;
  const auto r = row(p, {kLeast, 1, 1, 1});
  p.release(r[0]);
  CHECK(free_pages(p) == kLeast);
  p.release(r[2]);
  CHECK(free_pages(p) == 1);

  // Address space costs nothing until it is touched.
  Span* const big = p.large(kLeast * 16);
  Span* const part = p.large(kLeast * 3 / 2);
  REQUIRE(p.large(1) != nullptr);
  REQUIRE(in_use(p) / 8 > kLeast * 3 / 2);
  p.release(part);
  CHECK(free_pages(p) == kLeast * 3 / 2);
  p.release(big);
  CHECK(free_pages(p) <= kLeast);
}

// A block of each size in turn, and each frees the one before it: what is free has the wrong
// length.
TEST_CASE("page heap: what is in use and what stays committed are little more than the peak") {
  const bool is_huge = GENERATE(false, true);
  CAPTURE(is_huge);
  Pages p;
  if (is_huge) p.ask_for_huge_pages();
  test::Random random(5);
  std::vector<Span*> spans(16);
  std::size_t too_much = 0;
  std::size_t peak = 0;
  for (int i = 0; i < 2000; ++i) {
    Span*& span = spans[random.below(spans.size())];
    if (span != nullptr) p.release(span);
    span = p.large(std::size_t{64} << random.below(6));
    REQUIRE(span != nullptr);
    for (std::size_t look = 0; look < kBlockLooks; ++look) {
      span->start.ptr()[(2 * look + 1) * span->length.bytes() / (2 * kBlockLooks)] = 1;
    }
    const PageHeapStats s = p.heap.stats();
    peak = std::max(peak, s.in_use.value);
    const std::size_t more =
        is_huge ? peak / kHugePeakBoundPart
                : std::max(PageCount::of_bytes(kMinPeakBound).value, peak / kPeakBoundPart);
    if (s.in_use.value + s.free.value > peak + more) ++too_much;
  }
  CHECK(too_much == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a bound that is too low for a program rises, but not for a peak") {
  Pages p;
  constexpr std::size_t kPiece = 8;
  constexpr std::size_t kPieces = 2 * kMinFreeBound / PageCount{kPiece}.bytes();
  std::vector<Span*> spans;
  const auto round = [&] {
    while (spans.size() < kPieces) spans.push_back(p.large(kPiece));
    for (Span* const span : spans) p.release(span);
    spans.clear();
    return p.heap.stats().runs_returned;
  };
  const std::size_t first = round();
  CHECK(first > 0);
  CHECK(free_pages(p) * kPageBytes <= kMinFreeBound);
  for (int i = 0; i < 3; ++i) round();
  const std::size_t warm = p.heap.stats().runs_returned;
  for (int i = 0; i < 20; ++i) CHECK(round() == warm);
  CHECK(free_pages(p) == kPieces * kPiece);

  // What is freed now is not wanted again. The blocks are too long to be joined from what is free.
  for (const std::uint32_t ms : {0U, 2 * kReuseMs}) p.heap.age(5000 + ms);
  for (int i = 0; i < 20; ++i) spans.push_back(p.large(3 * kPieces * kPiece));
  for (Span* const span : spans) p.release(span);
  CHECK(free_pages(p) * kPageBytes <= kMinFreeBound);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what is taken again within a short time stays, for so long") {
  Pages p;
  constexpr std::size_t kPiece = 8;
  constexpr std::size_t kPieces = kMinFreeBound / PageCount{kPiece}.bytes();
  std::vector<Span*> spans;
  std::uint32_t now = 5000;
  const auto take = [&](std::size_t count) {
    while (spans.size() < count) spans.push_back(p.large(kPiece));
  };
  const auto free_all = [&] {
    for (Span* const span : spans) p.release(span);
    spans.clear();
    return free_pages(p) / kPiece;
  };
  REQUIRE(p.large(kPieces * kPiece) != nullptr);  // in use all the time
  p.heap.age(now);
  take(kPieces);
  free_all();
  for (int i = 0; i < 2; ++i) {
    take(kPieces);
    CHECK(free_all() == kPieces);
  }
  take(2 * kPieces);
  CHECK(free_all() == 2 * kPieces);
  CHECK(p.heap.stats().runs_returned == 0);

  // The same in the time after, then in none.
  p.heap.age(now += kReuseMs);
  take(2 * kPieces);
  CHECK(free_all() == 2 * kPieces);
  take(2 * kPieces);
  p.heap.age(now += 2 * kReuseMs);
  CHECK(free_all() <= kPieces);
  // A peak of new memory, and nothing of it given back before.
  p.heap.age(now += kAgeMs);
  take(4 * kPieces);
  p.heap.age(now += kReuseMs);
  CHECK(free_all() <= kPieces);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what one piece has turned over and over is no more than its pages") {
  Pages p;
  constexpr std::size_t kPiece = 8;
  constexpr std::size_t kPieces = kMinFreeBound / PageCount{kPiece}.bytes();
  p.heap.age(5000);
  std::vector<Span*> spans;
  while (spans.size() < 4 * kPieces) spans.push_back(p.large(kPiece));
  for (std::size_t i = 0; i < 8 * kPieces; ++i) p.release(p.large(kPiece));
  for (Span* const span : spans) p.release(span);
  CHECK(free_pages(p) <= kPieces * kPiece);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what nobody has needed for a while goes back by halves, bit by bit") {
  Pages p;
  constexpr std::size_t kIdle = 2048;
  const auto r = row(p, {kIdle, 1, 300, 1});
  std::uint32_t now = 5000;
  p.heap.age(now);
  p.release(r[0]);
  p.release(r[2]);
  p.heap.age(now += kAgeMs);  // a part of the time they were in use
  CHECK(free_pages(p) == kIdle + 300);
  p.heap.age(now += kAgeMs - 1);
  CHECK(free_pages(p) == kIdle + 300);
  p.heap.age(now += 1);  // no more at a time than the time since the last call allows
  CHECK(free_pages(p) == kIdle + 300 - kAgedPerMs);
  p.heap.age(now - 10);  // by a thread that was held up
  CHECK(free_pages(p) == kIdle + 300 - kAgedPerMs);
  p.heap.age(now += 2);
  CHECK(free_pages(p) == kIdle + 300 - 3 * kAgedPerMs);
  p.heap.age(now += kAgeMs - 4);
  CHECK(free_pages(p) == (kIdle + 300) / 2);

  // What was needed in between stays.
  const std::size_t before = free_pages(p);
  Span* const span = p.large(before - 100);
  REQUIRE(span != nullptr);
  p.release(span);
  p.heap.age(now += 1);
  p.heap.age(now += kAgeMs - 1);
  CHECK(free_pages(p) >= before - 60);
  for (int i = 0; i < 20; ++i) p.heap.age(now += kAgeMs);
  CHECK(free_pages(p) <= 1);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: of what nobody has needed, runs go back that nobody has taken") {
  Pages p;
  const auto r = row(p, {300, 1, 60, 1, 40, 1});
  std::uint32_t now = 5000;
  for (const std::size_t i : {0U, 2U, 4U}) p.release(r[i]);
  p.heap.age(now += kAgeMs);
  Span* const taken = p.large(300);
  const PageId start = taken->start;
  p.heap.age(now += kAgeMs);
  CHECK(free_pages(p) == 50);
  p.release(taken);
  p.heap.age(now += kAgeMs);
  CHECK(free_pages(p) == 325);
  CHECK(p.large(300)->start == start);  // has its memory still
  CHECK(free_pages(p) == 25);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a bound that the user has set is not undercut by age") {
  Pages p(4096, PageCount{64}.bytes());
  const auto r = row(p, {64, 1});
  p.release(r[0]);
  for (std::uint32_t now = 5000; now < 60000; now += kAgeMs) p.heap.age(now);
  CHECK(free_pages(p) == 64);
}

TEST_CASE("page heap: a bound that has risen stays while it is needed, and falls with time") {
  Pages p;
  constexpr std::size_t kPiece = 8;
  constexpr std::size_t kPieces = 2 * kMinFreeBound / PageCount{kPiece}.bytes();
  std::vector<Span*> spans;
  std::uint32_t now = 5000;
  p.heap.age(now);
  const auto round = [&] {
    while (spans.size() < kPieces) spans.push_back(p.large(kPiece));
    p.heap.age(now += kAgeMs);
    for (Span* const span : spans) p.release(span);
    spans.clear();
  };
  for (int i = 0; i < 3; ++i) round();
  const std::size_t warm = p.heap.stats().runs_returned;
  for (int i = 0; i < 20; ++i) round();
  CHECK(p.heap.stats().runs_returned == warm);
  CHECK(free_pages(p) == kPieces * kPiece);
  for (int i = 0; i < 30; ++i) p.heap.age(now += kAgeMs);
  CHECK(free_pages(p) <= 1);
  round();
  CHECK(free_pages(p) * kPageBytes <= kMinFreeBound);

  // As many are taken again each time, but so late that they were rather not kept.
  for (int i = 0; i < 5; ++i) {
    p.heap.age(now += kAgeMs);
    round();
    CHECK(free_pages(p) * kPageBytes <= kMinFreeBound);
  }
}

TEST_CASE("page heap: runs in random order go back in few calls, oldest of a length first") {
  Pages p(4096, PageCount{1024}.bytes());
  std::vector<Span*> spans;
  for (int i = 0; i < 8192; ++i) spans.push_back(p.large(1));
  const PageId first = spans[0]->start;
  // Every other one, so that none are neighbours.
  for (std::size_t i = 0; i < spans.size(); i += 2) p.release(spans[i]);
  CHECK(free_pages(p) <= 1024);
  CHECK(free_pages(p) >= 1024 - 1024 / kReturnSlackPart - kReturnBatch);
  CHECK(p.map->span_at(first)->state == SpanState::kReturned);
  CHECK(p.map->span_at(spans[8190]->start)->state == SpanState::kFree);
  CHECK(p.adds_up());
}

TEST_CASE(
    "page heap: with huge pages wanted nothing shorter is returned, and chunks ask for them") {
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  Pages p(Options{.free_bound = kPageBytes, .huge_pages = Options::kYes});
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < 64 * kUnit; ++i) spans.push_back(p.large(1));
  CHECK(p.fake.huge_bytes(true) == p.fake.mapped_bytes());
  CHECK(p.fake.huge_bytes(false) == 0);
  for (std::size_t i = 0; i < spans.size(); ++i) {
    if (i % 64 != 0) p.release(spans[i]);
  }
  CHECK(p.fake.calls(OsCall::kDecommit) == 0);
  const std::size_t half = spans.size() / 2;
  for (std::size_t i = 0; i < half; i += 64) p.release(spans[i]);
  CHECK(p.fake.decommitted_bytes() >= 2 * kHugePageBytes);
  CHECK(p.fake.decommitted_bytes() % kHugePageBytes == 0);
  p.heap.trim();
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: no huge pages are asked for or refused unless the option says so") {
  for (const std::size_t option : {Options::kNo, Options::kAuto}) {
    Pages p(Options{.huge_pages = option});
    REQUIRE(p.large(1000) != nullptr);
    CHECK(p.fake.huge_bytes(true) == 0);
    CHECK(p.fake.huge_bytes(false) == (option == Options::kNo ? p.fake.mapped_bytes() : 0));
  }
}

TEST_CASE("page heap: much that has gone back in pieces puts an end to the kernel's huge pages") {
  const auto option = GENERATE(as<std::size_t>{}, Options::kNo, Options::kYes, Options::kAuto);
  const bool has_holes = GENERATE(false, true);
  const bool has_asked = GENERATE(false, true);
  CAPTURE(option, has_holes, has_asked);
  Pages p(Options{.free_bound = kPageBytes, .huge_pages = option}, 4096,
          has_holes ? FakeOs::Layout::kHoles : FakeOs::Layout::kRising);
  if (has_asked && option == Options::kAuto) p.ask_for_huge_pages();
  const auto refused = [&] { return p.fake.huge_bytes(false); };
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < 32 * kMinPieceBytes / kPageBytes; ++i) {
    spans.push_back(p.large(1));
    if (has_asked) fill(spans.back(), 1);
  }
  const std::size_t in_use = spans.size() * kPageBytes;
  const std::size_t before = option == Options::kNo ? p.fake.mapped_bytes() : 0;
  const auto release_pieces = [&](std::size_t from, std::size_t bytes) {
    for (std::size_t i = from; i < from + 2 * bytes / kPageBytes; i += 2) p.release(spans[i]);
    p.heap.review_huge_pages();
  };
  release_pieces(0, in_use / 10);
  CHECK(refused() == before);
  release_pieces(spans.size() / 2, in_use / 10);
  CHECK(refused() == (option == Options::kYes ? 0 : p.fake.mapped_bytes()));
  p.heap.review_huge_pages();
  REQUIRE(p.large(kMaxChunkPages) != nullptr);
  CHECK(refused() == (option == Options::kYes ? 0 : p.fake.mapped_bytes()));
  // The pieces become whole, but only some heaps want huge pages.
  const std::size_t asked = p.fake.huge_bytes(true);
  for (std::size_t i = 1; i < in_use / 5 / kPageBytes; i += 2) {
    p.release(spans[i]);
    p.heap.review_huge_pages();
    CHECK((i > in_use / 20 / kPageBytes || p.fake.huge_bytes(true) == asked));
    p.release(spans[spans.size() / 2 + i]);
  }
  p.heap.review_huge_pages();
  const bool asks_again = has_asked && option == Options::kAuto;
  CHECK(p.fake.huge_bytes(true) == asked + (asks_again ? p.fake.mapped_bytes() : 0));
  p.heap.review_huge_pages();
  CHECK(p.fake.huge_bytes(true) == asked + (asks_again ? p.fake.mapped_bytes() : 0));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: pieces that have become whole again do not count as such") {
  Pages p(Options{.free_bound = kPageBytes});
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < 8 * kMinPieceBytes / kPageBytes; ++i) spans.push_back(p.large(1));
  for (const std::size_t first : {1U, 0U}) {
    for (std::size_t i = first; i < spans.size() / 2; i += 2) p.release(spans[i]);
  }
  REQUIRE(returned(p) * kPageBytes > 2 * kMinPieceBytes);
  p.heap.review_huge_pages();
  CHECK(p.fake.huge_bytes(false) == 0);
}

TEST_CASE(
    "page heap: a large heap of blocks that are written to asks for huge pages, for all of it") {
  const auto option = GENERATE(as<std::size_t>{}, Options::kNo, Options::kAuto);
  const bool has_holes = GENERATE(false, true);
  CAPTURE(option, has_holes);
  Pages p(Options{.huge_pages = option}, 4096,
          has_holes ? FakeOs::Layout::kHoles : FakeOs::Layout::kRising);
  p.free_written_block();
  const auto grow = [&](auto add) {
    for (const std::size_t before = mapped(p); mapped(p) == before;) add();
  };
  const auto add_large = [&] { p.large(64); };
  const auto add_small = [&] { p.small(class_of(kMaxPopulatedBytes)); };
  while (in_use(p) * kPageBytes < kMinHugeBytes) {
    p.heap.review_huge_pages();
    CHECK(p.fake.huge_bytes(true) == 0);
    add_large();
  }
  grow(add_large);
  CHECK(p.fake.huge_bytes(true) == 0);  // not under the lock
  p.heap.review_huge_pages();
  const auto all = [&] { return option == Options::kAuto ? p.fake.mapped_bytes() : 0; };
  CHECK(p.fake.huge_bytes(true) == all());
  grow(add_large);
  grow(add_small);
  CHECK(p.fake.huge_bytes(true) == all());
  // Not when it has become a heap of which less is known.
  const std::size_t before = p.fake.huge_bytes(true);
  p.large((kWrittenPart + 1) * kMinHugeBytes / kPageBytes);
  p.heap.review_huge_pages();
  CHECK(p.fake.huge_bytes(true) == before);
}

TEST_CASE("page heap: a heap of which most is small objects asks for no huge pages") {
  const bool has_more = GENERATE(false, true);
  CAPTURE(has_more);
  Pages p;
  p.free_written_block();
  while (in_use(p) * kPageBytes < kMinHugeBytes) p.small(class_of(kMaxPopulatedBytes));
  p.large(in_use(p) - (has_more ? 0 : 1));
  p.heap.review_huge_pages();
  CHECK((p.fake.huge_bytes(true) != 0) == has_more);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: large blocks count as written if enough of them were when they were freed") {
  constexpr std::size_t kPages = 64;
  constexpr std::size_t kPart = PageCount{kPages}.bytes() / kBlockLooks;
  constexpr std::size_t kEnough = kMinHugeBytes / kWrittenPart / PageCount{kPages}.bytes();
  const std::size_t freed = kEnough - GENERATE(1U, 0U);
  const std::size_t zeros =
      GENERATE(range(std::size_t{0}, kBlockLooks + 1));  // a part; the last: none
  const bool is_fresh = GENERATE(true, false);
  const bool is_readable = GENERATE(true, false);
  CAPTURE(freed, zeros, is_fresh, is_readable);
  Pages p;
  if (!is_readable) p.fake.fail(OsCall::kRead, kBlockLooks);
  std::vector<Span*> spans;
  while (spans.size() < freed) {
    spans.push_back(p.large(kPages));
    fill(spans.back(), 1);
  }
  if (zeros < kBlockLooks) memset(spans.back()->start.ptr() + zeros * kPart, 0, kPart);
  while (in_use(p) * kPageBytes < kMinHugeBytes + freed * kPages * kPageBytes) p.large(kPages);
  for (std::size_t i = 0; i < freed; ++i) {
    spans[i]->zero = spans[i]->zero && is_fresh;
    p.release(spans[i]);
  }
  CHECK(p.fake.huge_bytes(true) == 0);
  p.heap.review_huge_pages();
  const bool has_asked = freed == kEnough && zeros == kBlockLooks && is_fresh && is_readable;
  CHECK(p.fake.huge_bytes(true) == (has_asked ? p.fake.mapped_bytes() : 0));
}

TEST_CASE("page heap: with a small span the rest of its huge page has memory, and comes next") {
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  Pages p;
  p.ask_for_huge_pages();
  Span* const unit = p.large(kUnit, kUnit);
  const PageId start = unit->start;
  while (returned(p) != 0) p.large(1);
  p.release(unit);
  p.heap.trim();
  REQUIRE(returned(p) == kUnit);
  REQUIRE(free_pages(p) == 0);
  const Span* const span = p.small(1);
  CHECK(span->zero);
  CHECK(returned(p) == 0);
  CHECK(free_pages(p) == kUnit - span->length.value);
  const Span* const next = p.large(1);
  CHECK((next->start >= start && next->start < start + PageCount{kUnit}));
  CHECK_FALSE(next->zero);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: without memory to describe a rest a small span takes none of it along") {
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  Pages p;
  p.ask_for_huge_pages();
  Span* const first = p.large(kUnit, kUnit);
  Span* const second = p.large(kUnit);
  REQUIRE(second->start == first->end());
  while (returned(p) != 0) p.large(1);
  p.exhaust_metadata();
  p.release(first);
  p.release(second);  // which leaves one Span to be had: for what is behind the small span
  p.heap.trim();
  REQUIRE(returned(p) == 2 * kUnit);
  const Span* const span = p.small(1);
  REQUIRE(span != nullptr);
  CHECK(span->zero);
  CHECK(returned(p) == 2 * kUnit - span->length.value);
  CHECK(p.adds_up());
  CHECK(p.heap.violation() == nullptr);
}

TEST_CASE("page heap: a run goes back with what is returned already of its huge page") {
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  const bool is_asked = GENERATE(false, true);
  CAPTURE(is_asked);
  Pages p(Options{.free_bound = kPageBytes});
  if (is_asked) p.ask_for_huge_pages();
  Span* const span = p.large(kUnit, kUnit);
  REQUIRE(p.heap.resize_in_place(span, PageCount{kUnit / 2}));
  const std::size_t before = p.fake.decommitted_bytes();
  REQUIRE(before >= kHugePageBytes / 2);
  p.release(span);
  CHECK(p.fake.decommitted_bytes() == before + kHugePageBytes / (is_asked ? 1 : 2));
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: where huge pages are asked for whole ones are returned first, but by trim") {
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  Pages p(Options{.free_bound = 2 * kHugePageBytes});
  p.ask_for_huge_pages();
  // Two huge pages, with half of one at either end.
  Span* const before = p.large(kUnit / 2, kUnit);
  const auto r = row(p, {3 * kUnit, kUnit});
  REQUIRE(r[0]->start == before->end());
  p.heap.trim();
  const std::size_t decommitted = p.fake.decommitted_bytes();
  p.release(r[0]);
  CHECK(p.fake.decommitted_bytes() == decommitted + 2 * kHugePageBytes);
  CHECK(free_pages(p) == kUnit);
  p.heap.trim();
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: memory that is only offered is never taken for zero", "[I6]") {
  Pages p(Options{.free_bound = kPageBytes, .release = Options::kOffer});
  const auto r = row(p, {300, 1});
  p.release(r[0]);
  p.heap.trim();
  CHECK(p.fake.offered_bytes() == PageCount{300}.bytes());
  CHECK(p.fake.calls(OsCall::kDecommit) == 0);
  Span* const again = p.large(300);
  REQUIRE(again->start + PageCount{300} == r[1]->start);
  CHECK_FALSE(again->zero);
  CHECK(*again->start.ptr() == static_cast<char>(0xab));  // as the kernel left it
  p.heap.clear(again, again->length.bytes());
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  CHECK(all_zero(again->start.ptr(), again->length.bytes()));
  fill(again, 0xab);
  p.fake.fail(OsCall::kDecommit, 1);
  p.heap.clear(again, 5);
  CHECK(all_zero(again->start.ptr(), 5));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what the OS will not have as an offer it gets, or keeps") {
  const bool takes_it = GENERATE(true, false);
  Pages p(Options{.free_bound = kPageBytes, .release = Options::kOffer});
  p.fake.fail(OsCall::kOffer, 1, test::kAlways);
  if (!takes_it) p.fake.fail(OsCall::kDecommit, 1, test::kAlways);
  const auto r = row(p, {300, 1});
  p.release(r[0]);
  CHECK(p.fake.decommitted_bytes() == (takes_it ? PageCount{300}.bytes() : 0));
  CHECK(free_pages(p) == (takes_it ? 0 : 300));
  CHECK(p.adds_up());
}

// --- Limits -------------------------------------------------------------------------------------

TEST_CASE("page heap: at the hard limit requests fail, and what is freed serves the next") {
  constexpr std::size_t kLimit = 4096;
  Pages p(Options{.hard_limit = PageCount{kLimit}.bytes()});
  const auto within = [&] {
    const PageHeapStats s = p.heap.stats();
    return s.in_use.value + s.free.value + p.arena.reserved_bytes() / kPageBytes <= kLimit;
  };
  std::vector<Span*> spans;
  for (Span* span; (span = p.large(50)) != nullptr;) spans.push_back(span);
  CHECK(within());
  CHECK(spans.size() >= (kLimit - 64) / 50 - 1);
  CHECK(p.large(50) == nullptr);
  for (Span* span; (span = p.large(4)) != nullptr;) spans.push_back(span);
  CHECK_FALSE(p.heap.resize_in_place(spans.back(), PageCount{200}));
  CHECK(p.heap.acquire_small(kNumClasses - 1, 8).empty());
  CHECK(p.adds_up());

  // Free, but in pieces: they are returned, so that others have their memory.
  for (std::size_t i = 0; i < spans.size(); i += 2) p.release(spans[i]);
  Span* const big = p.large(kLimit / 3);
  REQUIRE(big != nullptr);
  CHECK(within());
  p.release(big);
  for (std::size_t i = 1; i < spans.size(); i += 2) p.release(spans[i]);
  CHECK(p.large(kLimit) == nullptr);
  CHECK(p.large(kLimit - 64) != nullptr);
  CHECK(within());
  CHECK(p.adds_up());
}

TEST_CASE("page heap: at the hard limit a request that is longer than all that is free is served") {
  constexpr std::size_t kLimit = 4096;
  Pages p(Options{.hard_limit = PageCount{kLimit}.bytes()});
  std::vector<Span*> spans;
  for (int i = 0; i < 20; ++i) spans.push_back(p.large(128));
  for (std::size_t i = 0; i < spans.size(); i += 2) p.release(spans[i]);
  REQUIRE(free_pages(p) == 1280);
  CHECK(p.large(kLimit) == nullptr);
  CHECK(free_pages(p) == 1280);  // nothing that is free would have helped
  CHECK(p.large(kLimit - 1280 - 64) != nullptr);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: at the hard limit a span grows into what free pages elsewhere have") {
  constexpr std::size_t kLimit = 4096;
  Pages p(Options{.hard_limit = PageCount{kLimit}.bytes()}, 4096, FakeOs::Layout::kHoles);
  Span* const span = p.large(3500);
  REQUIRE(p.heap.resize_in_place(span, PageCount{500}));
  p.heap.trim();
  Span* const elsewhere = p.large(3501);
  REQUIRE(elsewhere != nullptr);
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{600}));
  p.release(elsewhere);
  CHECK_FALSE(p.heap.resize_in_place(span, PageCount{3501}));
  REQUIRE(free_pages(p) == 3501);  // what is behind it is too short, whatever is returned
  CHECK(p.heap.resize_in_place(span, PageCount{1500}));
  CHECK(in_use(p) == 1500);
  CHECK(in_use(p) + free_pages(p) + p.arena.reserved_bytes() / kPageBytes <= kLimit);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: above the soft limit not only whole huge pages are returned") {
  constexpr std::size_t kLimit = 4096;
  Pages p(Options{.soft_limit = PageCount{kLimit}.bytes(), .huge_pages = Options::kYes});
  std::vector<Span*> spans;
  for (std::size_t i = 0; i < 100; ++i) spans.push_back(p.large(128));
  for (std::size_t i = 0; i < spans.size(); i += 2) p.release(spans[i]);
  CHECK(in_use(p) > kLimit);
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE(
    "page heap: the soft limit leaves room for free pages below it only, and refuses nothing") {
  constexpr std::size_t kLimit = 1024;
  Pages p(Options{.soft_limit = PageCount{kLimit}.bytes()});
  const std::size_t metadata = PageCount::of_bytes(kMetadataChunkBytes).value;
  const auto r = row(p, {600, 1, 300, 1});
  CHECK_FALSE(p.heap.take_pressure());
  p.release(r[0]);
  CHECK(free_pages(p) == 600);
  // Before it would grow beyond: what it takes has no memory until it is written to.
  Span* const more = p.large(700);
  REQUIRE(more != nullptr);
  CHECK(free_pages(p) + in_use(p) + metadata <= kLimit + 16);
  CHECK_FALSE(p.heap.take_pressure());
  Span* const beyond = p.large(kLimit);
  REQUIRE(beyond != nullptr);
  CHECK(free_pages(p) == 0);
  CHECK(p.heap.take_pressure());
  CHECK_FALSE(p.heap.take_pressure());
  REQUIRE(p.large(1) != nullptr);
  CHECK_FALSE(p.heap.take_pressure());  // too little more
  REQUIRE(p.large(kLimit / 8) != nullptr);
  CHECK(p.heap.take_pressure());
  p.release(r[2]);
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a refused decommit is tolerated, and not asked for again for a while",
          "[I6]") {
  const Refused what = GENERATE(Refused::kNothing, Refused::kHalf, Refused::kScribble);
  Pages p(4096, PageCount{4}.bytes());
  const auto r = row(p, {32, 1, 16, 1});
  std::vector<Span*> ones;
  for (std::uint32_t i = 0; i < 2 * kDecommitPause + 4; ++i) ones.push_back(p.large(1));
  p.fake.fail(OsCall::kDecommit, 1);
  p.fake.refused_decommit_does(what);
  p.release(r[0]);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  CHECK(free_pages(p) == 32);
  CHECK(p.heap.stats().runs_returned == 0);
  CHECK(p.adds_up());
  for (std::uint32_t i = 0; i < kDecommitPause; ++i) {
    p.release(ones.back());
    ones.pop_back();
  }
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  // Its contents are unknown now, whatever the kernel did.
  Span* const again = p.large(32);
  CHECK_FALSE(again->zero);
  p.release(again);
  CHECK(p.fake.calls(OsCall::kDecommit) > 1);
  CHECK(free_pages(p) <= 4);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: trim returns all, also right after a refusal") {
  Pages p;
  const auto r = row(p, {32, 1, 16, 1});
  p.release(r[0]);
  p.release(r[2]);
  p.fake.fail(OsCall::kDecommit, 1, 2);
  CHECK(p.heap.trim() == 0);
  CHECK(p.adds_up());
  CHECK(p.heap.trim() == PageCount{48}.bytes());
  CHECK(p.fake.decommitted_bytes() == PageCount{48}.bytes());
  CHECK(free_pages(p) == 0);
  CHECK(p.heap.trim() == 0);
  CHECK(p.adds_up());
}

// The program has locked it and freed it, say. It is the longest, also the next time.
TEST_CASE("page heap: a run that the OS refuses does not keep others from being returned", "[I6]") {
  Pages p(4096, PageCount{4}.bytes());
  const auto r = row(p, {32, 1, 16, 1, 16, 1});
  std::vector<Span*> ones;
  for (std::uint32_t i = 0; i <= kDecommitPause; ++i) ones.push_back(p.large(1));
  p.fake.refuse_range(r[0]->start.ptr(), r[0]->length.bytes());
  p.release(r[0]);
  p.release(r[2]);
  CHECK(p.heap.trim() == PageCount{16}.bytes());
  CHECK(free_pages(p) == 32);
  CHECK(p.adds_up());
  p.release(r[4]);
  for (Span* const one : ones) p.release(one);
  CHECK(free_pages(p) <= 32 + 4);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: of a long run that the OS refuses only what lies around a locked page stays",
          "[I4][I6]") {
  constexpr std::size_t kHalf = kMinHalfBytes / kPageBytes;
  constexpr std::size_t kLong = 64 * kHalf;
  const std::size_t locked = GENERATE(as<std::size_t>{}, 0, 1000, kLong - 1);
  const Refused what = GENERATE(Refused::kNothing, Refused::kHalf, Refused::kScribble);
  CAPTURE(locked);
  Pages p;
  p.fake.refused_decommit_does(what);
  const auto r = row(p, {kLong, 1});
  const PageId page = r[0]->start + PageCount{locked};
  p.fake.refuse_range(page.ptr(), kPageBytes);
  p.release(r[0]);
  CHECK(p.heap.trim() == PageCount{kLong - kHalf}.bytes());
  CHECK(free_pages(p) == kHalf);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1 + 2 * 6);
  const Span* const left = p.map->span_at(r[1]->start - PageCount{kLong - locked / kHalf * kHalf});
  REQUIRE(left->state == SpanState::kFree);
  CHECK((left->start <= page && page < left->end()));
  CHECK(p.adds_up());
  CHECK(p.heap.trim() == 0);  // too short to be cut
  CHECK(p.fake.calls(OsCall::kDecommit) == 1 + 2 * 6 + 1);
  p.fake.stop_failing();
  CHECK(p.heap.trim() == PageCount{kHalf}.bytes());
  Span* const again = p.large(kLong);
  CHECK(again->zero);
  CHECK(all_zero(again->start.ptr(), again->length.bytes()));
  CHECK(p.adds_up());
}

// As in a process that locks all its memory.
TEST_CASE("page heap: a run of which the OS refuses every part stays, after few calls", "[I5]") {
  constexpr std::size_t kLong = 1024 * kMinHalfBytes / kPageBytes;
  Pages p(4096, PageCount{4}.bytes());
  const auto r = row(p, {kLong, 1, 16, 1});
  p.fake.refuse_range(r[0]->start.ptr(), r[0]->length.bytes());
  p.release(r[2]);
  p.release(r[0]);
  CHECK(free_pages(p) == kLong);
  CHECK(p.fake.calls(OsCall::kDecommit) == 2 * kMaxHalves);
  CHECK(p.adds_up());
  p.fake.stop_failing();
  CHECK(p.heap.trim() == PageCount{kLong}.bytes());
  CHECK(p.fake.calls(OsCall::kDecommit) == 2 * kMaxHalves + 1);
}

TEST_CASE("page heap: a refused run whose halves cannot be described stays whole", "[I4]") {
  constexpr std::size_t kLong = 4 * kMinHalfBytes / kPageBytes;
  Pages p;
  static_assert(kLong % kMinChunkPages == 0);  // or the chunk's end would become metadata
  const auto r = row(p, {kLong});
  p.release(r[0]);
  p.exhaust_metadata();
  p.fake.fail(OsCall::kDecommit, 1);
  CHECK(p.heap.trim() == 0);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  CHECK(free_pages(p) == kLong);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: what longer kernel pages hold only in part stays committed", "[I5]") {
  const std::size_t kernel_page = GENERATE(16 * 1024, 64 * 1024);
  const std::size_t unit = kernel_page / kPageBytes;
  CAPTURE(unit);
  Pages p(kernel_page);
  const auto r = row(p, {1, 2 * unit, unit, unit, 1});
  p.release(r[1]);  // from the second page of a kernel page on, two long: holds one whole
  p.release(r[3]);  // likewise, one long: holds none
  CHECK(p.heap.trim() == kernel_page);
  CHECK(p.fake.calls(OsCall::kDecommit) == 1);
  CHECK(free_pages(p) == 2 * unit);
  CHECK(p.adds_up());
  CHECK(p.heap.trim() == 0);
  CHECK(p.adds_up());
}

// All of them have to be looked at to find that out: at each release that would take for ever.
TEST_CASE("page heap: where no run holds a whole kernel page none is looked for for a while") {
  const bool by_limit = GENERATE(false, true);
  Pages p(Options{.free_bound = by_limit ? 0 : kPageBytes,
                  .soft_limit = by_limit ? PageCount{32}.bytes() : 0},
          64 * 1024);
  std::vector<Span*> ones;
  for (std::uint32_t i = 0; i < 2 * kDecommitPause + 8; ++i) ones.push_back(p.large(1));
  Span* const whole = p.large(16);
  for (std::size_t i = 0; i < 4; ++i) p.release(ones[2 * i]);
  p.release(whole);
  CHECK(p.fake.calls(OsCall::kDecommit) == 0);
  for (std::size_t i = 4; i < kDecommitPause + 4; ++i) p.release(ones[2 * i]);
  CHECK(p.fake.calls(OsCall::kDecommit) > 0);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a shorter run is returned when a longer one holds no whole kernel page") {
  Pages p(64 * 1024);
  const auto r = row(p, {1, 14, 1, 8, 1});  // pages 1 to 14 and 16 to 23
  p.release(r[1]);
  p.release(r[3]);
  CHECK(p.heap.trim() == 64 * 1024);
  CHECK(p.adds_up());
}

Pages* hooked = nullptr;
Span* hook_neighbour = nullptr;
std::size_t hook_faults = 0;

TEST_CASE("page heap: while a run is on its way to the OS its neighbours leave it alone", "[I4]") {
  Pages p;
  const auto r = row(p, {1, 8, 8, 1});
  hooked = &p;
  hook_neighbour = r[2];
  hook_faults = 0;
  const PageId start = r[1]->start;
  p.release(r[1]);
  p.fake.at_decommit([] {
    if (hook_neighbour == nullptr) return;
    Span* const neighbour = hook_neighbour;
    hook_neighbour = nullptr;
    if (!hooked->adds_up()) ++hook_faults;
    if (free_pages(*hooked) != 8) ++hook_faults;  // those under way count as free
    if (hooked->heap.find(neighbour->start.ptr() - 1).verdict != Verdict::kStale) ++hook_faults;
    hooked->release(neighbour);
    if (free_pages(*hooked) != 16) ++hook_faults;
    if (!hooked->adds_up()) ++hook_faults;
  });
  CHECK(p.heap.trim() == PageCount{8}.bytes());  // what was free when it began
  p.fake.at_decommit(nullptr);
  CHECK(p.heap.trim() == PageCount{8}.bytes());
  CHECK(hook_faults == 0);
  CHECK(p.adds_up());
  CHECK(p.large(16)->start == start);
}

// Where a thread is held up on its way to the OS, and what another one does meanwhile.
std::atomic<bool> hook_entered = false;
std::atomic<bool> hook_may_leave = false;

void wait_in_hook() {
  hook_entered = true;
  while (!hook_may_leave) std::this_thread::yield();
}

// The OS refuses more, and a run of 60 pages is on its way there until hook_may_leave.
struct HeldReturn : Pages {
  HeldReturn() {
    release(row(*this, {60, 68})[0]);
    hook_entered = hook_may_leave = false;
    fake.at_decommit(wait_in_hook);
    other = std::thread([this] { heap.trim(); });
    while (!hook_entered) std::this_thread::yield();
    fake.fail(OsCall::kReserve, 1, test::kAlways);
  }
  void end() {
    hook_may_leave = true;
    other.join();
    fake.at_decommit(nullptr);
    CHECK(adds_up());
  }
  std::thread other;
};

TEST_CASE("page heap: when the OS refuses, a run on its way there is waited for") {
  HeldReturn p;
  std::thread opener([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    hook_may_leave = true;
  });
  Span* const span = p.large(50);
  CHECK(span != nullptr);
  CHECK(hook_may_leave);
  CHECK(p.large(50) == nullptr);
  opener.join();
  p.end();
}

TEST_CASE("page heap: who waits for a run on its way to the OS goes on waiting after a signal") {
  HeldReturn p;
  struct sigaction before;
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, &before);  // no SA_RESTART
  std::thread opener([waiter = pthread_self()] {
    for (int i = 0; i < 2; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      pthread_kill(waiter, SIGUSR1);
    }
    hook_may_leave = true;
  });
  CHECK(p.large(50) != nullptr);
  CHECK(hook_may_leave);
  opener.join();
  sigaction(SIGUSR1, &before, nullptr);
  p.end();
}

TEST_CASE("page heap: nobody waits for a run that the very thread is returning") {
  Pages p;
  const auto r = row(p, {60, 68});
  p.release(r[0]);
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  hooked = &p;
  hook_faults = 0;
  p.fake.at_decommit([] {  // as a signal handler that allocates
    if (hooked->large(50) != nullptr) ++hook_faults;
  });
  CHECK(ending_of([&p] {
          p.heap.trim();
          _exit(hook_faults == 0 && p.adds_up() ? 0 : 1);
        }) == "exit 0: ");
  p.fake.at_decommit(nullptr);
}

TEST_CASE("page heap: two who are interrupted as they return runs do not wait for each other") {
  Pages p;
  const auto r = row(p, {60, 4, 60, 4});
  p.release(r[0]);
  p.fake.fail(OsCall::kReserve, 1, test::kAlways);
  hooked = &p;
  static std::atomic<int> interrupted;
  interrupted = 0;
  p.fake.at_decommit([] {  // as a signal handler that allocates
    thread_local bool is_inside = false;
    if (std::exchange(is_inside, true)) return;
    ++interrupted;
    while (interrupted != 2) std::this_thread::yield();
    hooked->large(50);
    is_inside = false;
  });
  CHECK(ending_of([&] {
          std::thread other([&p] { p.heap.trim(); });
          while (interrupted != 1) std::this_thread::yield();
          p.release(r[2]);
          p.heap.trim();
          other.join();
          _exit(p.adds_up() ? 0 : 1);
        }) == "exit 0: ");
  p.fake.at_decommit(nullptr);
}

TEST_CASE("page heap: when the OS refuses all, also to take memory back, there is an end") {
  Pages p;
  const auto r = row(p, {60, 68});
  p.release(r[0]);
  p.fake.fail_any(1, test::kAlways);
  CHECK(ending_of([&p] {
          if (p.large(60) == nullptr) _exit(1);  // there as it is
          if (p.large(10) != nullptr || p.small(1) != nullptr) _exit(2);
          _exit(p.adds_up() ? 0 : 3);
        }) == "exit 0: ");
  p.release(r[1]);
  CHECK(ending_of([&p] {
          if (p.large(200) != nullptr || p.large(200, 256) != nullptr) _exit(1);
          _exit(p.adds_up() ? 0 : 2);
        }) == "exit 0: ");
}

// Acquires, writes, resizes, moves and releases at random; what is said to be zero must be.
TEST_CASE("page heap: what is said to be zero is zero, to the last byte", "[I6]") {
  const std::size_t kernel_page = GENERATE(4096, 16 * 1024, 64 * 1024);
  const bool refusals = GENERATE(false, true);
  CAPTURE(kernel_page, refusals);
  Pages p(kernel_page, PageCount{100}.bytes());
  if (refusals) {
    p.fake.fail_one_in(4, kernel_page);
    p.fake.refused_decommit_does(Refused::kHalf);
  }
  test::Random random(kernel_page);
  std::vector<Span*> spans;
  std::size_t zeros = 0;
  std::size_t wrong = 0;
  for (int i = 0; i < 400 + 200 * static_cast<int>(test::kRounds); ++i) {
    if (spans.size() < 20 || random.below(2) == 0) {
      const std::size_t pages = 1 + random.below(random.below(20) == 0 ? 300 : 24);
      Span* const span = p.large(pages, std::size_t{1} << random.below(4));
      if (span == nullptr) continue;
      if (span->zero) {
        ++zeros;
        if (!all_zero(span->start.ptr(), span->length.bytes())) ++wrong;
      }
      fill(span, 0xcd);
      spans.push_back(span);
      continue;
    }
    std::swap(spans[random.below(spans.size())], spans.back());
    Span* const span = spans.back();
    if (random.below(3) == 0) {
      p.heap.resize_in_place(span, PageCount{1 + random.below(40)});
      fill(span, 0xef);
    } else if (Span * target;
               random.below(4) == 0 && (target = p.large(span->length.value + 3)) != nullptr) {
      if (move(p, span, target)) {
        spans.back() = target;
      } else {
        p.release(target);
      }
    } else {
      p.release(span);
      spans.pop_back();
    }
    if (i % 64 == 0 && !p.adds_up()) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(zeros > 50);
}

// --- Bad pointers -------------------------------------------------------------------------------

TEST_CASE("page heap: every pointer into a large object, beside it and into free pages is told") {
  Pages p(4096, 0, FakeOs::Layout::kHoles);
  const auto r = row(p, {3, 2, 123});
  char* const object = r[0]->start.ptr();
  char* const freed = r[1]->start.ptr();
  char* const last = r[2]->start.ptr();
  const auto find = [&p](const void* ptr) { return p.heap.find(ptr).verdict; };

  CHECK(find(object) == Verdict::kLive);
  CHECK(p.heap.find(object).bytes == PageCount{3}.bytes());
  for (const std::size_t offset :
       {std::size_t{1}, kPageBytes, 2 * kPageBytes, 3 * kPageBytes - 1}) {
    const Finding finding = p.heap.find(object + offset);
    CHECK(finding.verdict == Verdict::kInterior);
    CHECK(finding.start == reinterpret_cast<std::uintptr_t>(object));
    CHECK(finding.bytes == PageCount{3}.bytes());
  }
  p.release(r[1]);
  CHECK(find(freed) == Verdict::kStale);
  CHECK(find(freed + kPageBytes + 5) == Verdict::kStale);
  p.heap.trim();
  CHECK(find(freed) == Verdict::kStale);
  CHECK(find(freed + 2 * kPageBytes - 1) == Verdict::kStale);

  CHECK(find(last + 123 * kPageBytes - 1) == Verdict::kInterior);
  CHECK(find(last + 123 * kPageBytes) == Verdict::kForeign);  // behind the chunk
  CHECK(find(object - 1) == Verdict::kForeign);
  int on_stack = 0;
  CHECK(find(&on_stack) == Verdict::kForeign);
  CHECK(find(nullptr) == Verdict::kForeign);
  for (const unsigned bit : {12U, 20U, 47U, 48U, 56U, 63U}) {
    CHECK(find(reinterpret_cast<void*>(std::uintptr_t{1} << bit)) == Verdict::kForeign);
  }
  CHECK(find(reinterpret_cast<void*>(UINTPTR_MAX)) == Verdict::kForeign);

  Span* const small = p.small(1);
  CHECK(find(small->start.ptr()) == Verdict::kStale);
}

TEST_CASE("page heap: only the beginning of a live large object is released", "[I2]") {
  Pages p;
  const auto r = row(p, {3, 2, 1});
  char* const object = r[0]->start.ptr();
  for (const std::size_t offset : {std::size_t{8}, kPageBytes, 2 * kPageBytes}) {
    CHECK(p.heap.release_large(object + offset).verdict == Verdict::kInterior);
  }
  CHECK(p.release(r[1]));
  CHECK(p.heap.release_large(object + 3 * kPageBytes).verdict == Verdict::kStale);
  int on_stack = 0;
  CHECK(p.heap.release_large(&on_stack).verdict == Verdict::kForeign);
  CHECK(in_use(p) == 4);
  CHECK(p.heap.release_large(object).verdict == Verdict::kLive);
  CHECK(p.heap.release_large(object).verdict == Verdict::kStale);
  CHECK(p.adds_up());
}

// --- Refusals -----------------------------------------------------------------------------------

// One use of everything. After each step the books must balance and no live span may have changed.
class Everything {
 public:
  explicit Everything(std::size_t kernel_page) : p(kernel_page, PageCount{64}.bytes()) {}

  void run() {
    acquire_large(3, 1);
    acquire_small(1);
    acquire_small(50);
    acquire_large(200, 1);
    acquire_large(5, 16);
    acquire_small(kNumClasses - 1);
    acquire_large(8, 8);
    acquire_large(16, 8);
    resize(0, 2);
    resize(3, 150);
    resize(3, 160);
    move(6, 7);
    release(1);
    release(3);
    acquire_large(70, 1);
    acquire_large(1, 1);
    release(8);
    acquire_large(300, 1);
    resize(spans.size() - 1, 200);
    p.heap.trim();
    check();
    release(0);
    acquire_large(300, 32);
  }
  void release_all() {
    for (std::size_t i = 0; i < spans.size(); ++i) release(i);
  }

  Pages p;
  std::size_t faults = 0;

 private:
  void check() {
    if (!p.adds_up()) ++faults;
    for (std::size_t i = 0; i < spans.size(); ++i) {
      if (spans[i] != nullptr && !all_bytes_are(spans[i]->start.ptr(), kept[i], value(i))) ++faults;
    }
  }
  static unsigned char value(std::size_t i) { return static_cast<unsigned char>(0x30 + i); }
  void add(Span* span) {
    spans.push_back(span);
    kept.push_back(0);
    refill(spans.size() - 1);
    check();
  }
  void refill(std::size_t i) {
    if (spans[i] == nullptr) return;
    kept[i] = spans[i]->length.bytes();
    fill(spans[i], value(i));
  }
  void acquire_small(unsigned cls) { add(p.small(cls)); }
  void acquire_large(std::size_t pages, std::size_t alignment) { add(p.large(pages, alignment)); }
  void resize(std::size_t i, std::size_t pages) {
    if (spans[i] == nullptr) return;
    if (p.heap.resize_in_place(spans[i], PageCount{pages})) {
      kept[i] = std::min(kept[i], spans[i]->length.bytes());
      check();
      refill(i);
    }
    check();
  }
  void move(std::size_t i, std::size_t j) {
    if (spans[i] == nullptr || spans[j] == nullptr) return;
    if (minitc::move(p, spans[i], spans[j])) {
      if (!all_bytes_are(spans[j]->start.ptr(), kept[i], value(i))) ++faults;
      spans[i] = nullptr;
    }
    refill(j);
    check();
  }
  void release(std::size_t i) {
    Span* const span = spans[i];
    spans[i] = nullptr;
    if (span == nullptr) return;
    if (span->state == SpanState::kSmall) {
      p.release_small(span);
    } else if (!p.release(span)) {
      ++faults;
    }
    check();
  }

  std::vector<Span*> spans;
  std::vector<std::size_t> kept;
};

TEST_CASE("page heap: whichever call the OS refuses, the books balance and nothing is lost",
          "[I4]") {
  const std::size_t kernel_page = GENERATE(4096, 16 * 1024, 64 * 1024);
  const std::size_t times = GENERATE(std::size_t{1}, test::kAlways);
  CAPTURE(kernel_page, times);
  std::size_t nth = 0;
  for (bool refused = true; refused;) {
    ++nth;
    CAPTURE(nth);
    Everything all(kernel_page);
    all.p.fake.fail_any(nth, times);
    all.run();
    refused = all.p.fake.refused() != 0;
    all.p.fake.stop_failing();
    CHECK(all.p.large(10) != nullptr);  // it works again
    all.release_all();
    CHECK(all.faults == 0);
    CHECK(in_use(all.p) == 10);
    all.p.heap.trim();
    CHECK(free_pages(all.p) * kPageBytes < 4 * kernel_page);
    CHECK(all.p.adds_up());
  }
  CHECK(nth > 5);
}

TEST_CASE("page heap: without metadata nothing is cut, and whole runs are still to be had",
          "[I4]") {
  Pages p;
  const auto r = row(p, {8, 1, 3, 116});
  p.release(r[0]);
  p.release(r[2]);
  p.exhaust_metadata();
  CHECK(p.large(5) == nullptr);
  CHECK(p.large(5, 2) == nullptr);
  CHECK(p.large(1000) == nullptr);  // the chunk that came went back
  CHECK(p.adds_up());
  CHECK(mapped(p) == kMinChunkPages);
  CHECK(p.large(8) != nullptr);
  CHECK(p.large(3) != nullptr);
  CHECK(p.adds_up());
}

TEST_CASE("page heap: when the OS gives no metadata, free pages become metadata", "[I4]") {
  const std::size_t donated = PageCount::of_bytes(kMetadataChunkBytes).value;
  const std::size_t rest = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{50});
  CAPTURE(rest);
  Pages p;
  const auto r = row(p, {8, 1, donated + rest, 1, 118 - donated - rest});
  const PageId start = r[2]->start;
  p.release(r[0]);
  p.release(r[2]);
  p.exhaust_metadata();
  Span* const span = p.large(5);  // cut from the run of 8, whose rest must be described
  REQUIRE(span != nullptr);
  fill(span, 0x77);
  CHECK(p.donated_bytes() == kMetadataChunkBytes);
  CHECK(mapped(p) == kMinChunkPages - donated);
  CHECK(free_pages(p) == 3 + rest);
  CHECK(p.adds_up());
  CHECK(p.heap.find(start.ptr()).verdict == Verdict::kForeign);
  CHECK(p.heap.find(start.ptr() + kMetadataChunkBytes - 1).verdict == Verdict::kForeign);
  if (rest != 0) {
    CHECK(p.heap.find((start + PageCount{donated}).ptr()).verdict == Verdict::kStale);
    CHECK(p.large(rest)->start == start + PageCount{donated});
  }
  CHECK(p.release(span));
  CHECK(p.release(r[1]));
  CHECK(p.release(r[3]));
  CHECK(p.adds_up());
}

TEST_CASE("page heap: a request beyond all memory is refused", "[I4]") {
  Pages p;
  CHECK(p.large(std::size_t{1} << 50) == nullptr);
  CHECK(p.large(1, std::size_t{1} << 50) == nullptr);
  CHECK(p.adds_up());
  CHECK(mapped(p) == 0);
}

// --- Threads ------------------------------------------------------------------------------------

TEST_CASE("page heap: threads acquire, resize and release while others trim, look and count") {
  Pages p(4096, PageCount{64}.bytes());
  std::atomic<std::size_t> spoiled{0};
  test::in_threads(8, [&](std::size_t thread) {
    test::Random random(thread);
    const auto value = static_cast<unsigned char>(thread + 1);
    std::vector<Span*> spans;
    for (std::size_t i = 0; i < 150 * test::kRounds; ++i) {
      if (thread == 7 && i % 10 == 0) p.heap.trim();
      if (thread == 6 && i % 20 == 0 && !p.stats_add_up()) ++spoiled;
      if (thread == 5) p.heap.find(&spans);
      if (spans.size() < 8) {
        const bool is_small = random.below(2) == 0;
        Span* const span = is_small
                               ? p.small(static_cast<unsigned>(1 + random.below(60)))
                               : p.large(1 + random.below(20), std::size_t{1} << random.below(4));
        fill(span, value);
        spans.push_back(span);
        continue;
      }
      std::swap(spans[random.below(spans.size())], spans.back());
      Span* const span = spans.back();
      if (!all_bytes_are(span->start.ptr(), span->length.bytes(), value)) ++spoiled;
      if (span->state == SpanState::kSmall) {
        p.release_small(span);
        spans.pop_back();
      } else if (random.below(2) == 0) {
        p.heap.resize_in_place(span, PageCount{1 + random.below(20)});
        fill(span, value);
      } else {
        p.release(span);
        spans.pop_back();
      }
    }
    for (Span* const span : spans) {
      if (span->state == SpanState::kSmall) {
        p.release_small(span);
      } else {
        p.release(span);
      }
    }
  });
  CHECK(spoiled == 0);
  CHECK(in_use(p) == 0);
  CHECK(p.heap.stats().large_count == 0);
  p.heap.trim();
  CHECK(free_pages(p) == 0);
  CHECK(p.adds_up());
}

}  // namespace
}  // namespace minitc
