#include "core/span.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <set>
#include <utility>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using enum SpanState;

constexpr SpanState kStates[] = {kFree, kKept, kReturning, kReturned, kSmall, kLarge};

// The drawing of the states, once more.
const std::set<std::pair<SpanState, SpanState>> kLegal = {
    {kFree, kReturning}, {kFree, kSmall},     {kFree, kLarge},     {kReturning, kReturned},
    {kReturning, kFree}, {kReturned, kSmall}, {kReturned, kLarge}, {kSmall, kKept},
    {kKept, kSmall},     {kKept, kFree},      {kLarge, kFree},     {kLarge, kReturned},
    {kReturned, kFree},
};

Span span_in(SpanState state) { return {PageId{100}, PageCount{4}, state}; }

TEST_CASE("span: the legal transitions are those of the drawing, for all pairs", "[I2]") {
  for (const SpanState from : kStates) {
    for (const SpanState to : kStates) {
      CAPTURE(static_cast<int>(from), static_cast<int>(to));
      CHECK(legal(from, to) == kLegal.contains({from, to}));
    }
  }
}

TEST_CASE("span: a legal transition is made, an illegal one is caught", "[I2]") {
  for (const SpanState from : kStates) {
    for (const SpanState to : kStates) {
      CAPTURE(static_cast<int>(from), static_cast<int>(to));
      if (kLegal.contains({from, to})) {
        Span span = span_in(from);
        span.become(to);
        CHECK(span.state == to);
      } else {
        CHECK(test::check_fails([=] { span_in(from).become(to); }));
      }
    }
  }
}

TEST_CASE("span: free are those that are in an index of the page heap") {
  for (const SpanState state : kStates) {
    CHECK(span_in(state).is_free() == (state == kFree || state == kReturned));
  }
}

TEST_CASE("span: a new one is empty and belongs to nothing") {
  const Span span = span_in(kReturned);
  CHECK(span.start == PageId{100});
  CHECK(span.end() == PageId{104});
  CHECK(span.prev == nullptr);
  CHECK(span.next == nullptr);
  CHECK_FALSE(span.zero);
  CHECK(span.cls() == 0);
  CHECK(span.free_count == 0);
}

TEST_CASE("span: every object of every class has a bit of its own in both bitmaps", "[I8]") {
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    Span span = span_in(kSmall);
    span.set_owner(Span::owner_of(cls, kMaxShards - 1));
    const std::size_t objects = kSizeClasses[cls].objects;
    CAPTURE(cls, objects);
    REQUIRE(span.words() * 64 >= objects);
    REQUIRE((span.words() - 1) * 64 < objects);
    std::vector<std::uint64_t> words(2 * span.words());
    span.bits = words.data();
    std::size_t clashes = 0;
    for (std::size_t i = 0; i < objects; ++i) {
      const std::uint64_t mask = Span::mask_of(i);
      if ((span.free_word(i) & mask) != 0) ++clashes;
      span.free_word(i) |= mask;
      if ((span.home_word(i).fetch_or(mask) & mask) != 0) ++clashes;
    }
    CHECK(clashes == 0);
    std::size_t bits = 0;
    for (const std::uint64_t word : words) bits += static_cast<std::size_t>(std::popcount(word));
    CHECK(bits == 2 * objects);
  }
}

std::vector<Span*> contents(const SpanList& list) {
  std::vector<Span*> spans;
  for (Span* span = list.front(); span != nullptr; span = span->next) {
    CHECK(span->prev == (spans.empty() ? list.back() : spans.back()));
    spans.push_back(span);
  }
  CHECK(list.empty() == spans.empty());
  CHECK(list.back() == (spans.empty() ? nullptr : spans.back()));
  return spans;
}

TEST_CASE("span list: the first, the last, the middle and the only one can be removed") {
  Span a = span_in(kFree);
  Span b = span_in(kFree);
  Span c = span_in(kFree);
  SpanList list;
  CHECK(contents(list).empty());
  list.push(&a);
  list.push(&b);
  list.push(&c);
  CHECK(contents(list) == std::vector<Span*>{&c, &b, &a});
  list.remove(&b);
  CHECK(contents(list) == std::vector<Span*>{&c, &a});
  CHECK((b.prev == nullptr && b.next == nullptr));
  list.remove(&c);
  CHECK(contents(list) == std::vector<Span*>{&a});
  list.push(&b);
  list.remove(&a);
  CHECK(contents(list) == std::vector<Span*>{&b});
  list.remove(&b);
  CHECK(contents(list).empty());
}

TEST_CASE("span list: random operations give what a plain list gives") {
  std::deque<Span> spans;
  for (int i = 0; i < 40; ++i) spans.push_back(span_in(kFree));
  std::vector<Span*> outside;
  for (Span& span : spans) outside.push_back(&span);
  std::vector<Span*> inside;  // the newest first
  SpanList list;
  test::Random random(3);
  for (int i = 0; i < 2000; ++i) {
    std::vector<Span*>& from = random.below(2) == 0 ? inside : outside;
    if (from.empty()) continue;
    const std::size_t pick = random.below(from.size());
    Span* const span = from[pick];
    from.erase(from.begin() + static_cast<std::ptrdiff_t>(pick));
    if (&from == &inside) {
      list.remove(span);
      outside.push_back(span);
    } else {
      list.push(span);
      inside.insert(inside.begin(), span);
    }
    if (i % 50 == 0) CHECK(contents(list) == inside);
  }
}

}  // namespace
}  // namespace minitc
