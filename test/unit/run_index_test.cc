#include "core/run_index.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

// The index and, beside it, a set of (length, start) that says what it should hold.
class Pair {
 public:
  void insert(Span* run) {
    index.insert(run);
    reference_[key_of(run)] = run;
  }
  void remove(Span* run) {
    index.remove(run);
    reference_.erase(key_of(run));
  }
  bool agrees_on_fit(std::size_t pages) const {
    const auto expected = reference_.lower_bound({pages, 0});
    const Span* const found = index.best_fit(PageCount{pages});
    if (expected == reference_.end() || found == nullptr) {
      return expected == reference_.end() && found == nullptr;
    }
    const std::size_t length = found->length.value;
    // Of short runs any will do, of long ones it is the lowest.
    return length == expected->first.first && reference_.contains(key_of(found)) &&
           (length < kBins || found == expected->second);
  }
  bool agrees() const {
    PageCount short_sum;
    PageCount sum;
    std::set<const Span*> seen;
    index.for_each([&](const Span* run) { seen.insert(run); });
    for (const auto& [key, run] : reference_) {
      if (!seen.contains(run)) return false;
      sum += run->length;
      if (run->length.bytes() < kHugePageBytes) short_sum += run->length;
    }
    // From the shortest on, the long ones in the very order of the set.
    auto expected = reference_.begin();
    for (const Span* run = index.best_fit(kOnePage); run != nullptr; run = index.next(run)) {
      if (expected == reference_.end() || seen.erase(run) == 0) return false;
      if (run->length.value != expected->first.first) return false;
      if (run->length.value >= kBins && run != expected->second) return false;
      ++expected;
    }
    if (!seen.empty()) return false;
    const Span* const longest = index.longest();
    const bool right_longest =
        reference_.empty()
            ? longest == nullptr
            : longest != nullptr && longest->length.value == reference_.rbegin()->first.first;
    return expected == reference_.end() && sum == index.pages() &&
           short_sum == index.short_pages() && right_longest;
  }
  std::size_t size() const { return reference_.size(); }

  RunIndex index;

 private:
  using Key = std::pair<std::size_t, std::uintptr_t>;
  static Key key_of(const Span* run) { return {run->length.value, run->start.value}; }

  std::map<Key, Span*> reference_;
};

Span run_of(std::uintptr_t start, std::size_t pages) {
  return {PageId{start}, PageCount{pages}, SpanState::kFree};
}

TEST_CASE("run index: an empty one fits nothing") {
  const RunIndex index;
  for (const std::size_t pages : {1UL, kBins - 1, kBins, kBins + 1, std::size_t{1} << 40}) {
    CHECK(index.best_fit(PageCount{pages}) == nullptr);
  }
  CHECK(index.longest() == nullptr);
  CHECK(index.longest_quiet(kQuietRounds) == nullptr);
  CHECK(index.pages() == PageCount{});
}

TEST_CASE("run index: the shortest run that is long enough is found, for every length", "[I3]") {
  Pair pair;
  std::deque<Span> runs;
  for (const std::size_t pages : {1UL, 2UL, 63UL, 64UL, 65UL, kBins - 1, kBins, kBins + 1, 400UL}) {
    runs.push_back(run_of(1000 * pages, pages));
    pair.insert(&runs.back());
  }
  for (std::size_t pages = 1; pages < 500; ++pages) {
    CAPTURE(pages);
    CHECK(pair.agrees_on_fit(pages));
  }
  CHECK(pair.agrees());
}

TEST_CASE("run index: of long runs of one length the lowest is taken") {
  RunIndex index;
  Span high = run_of(9000, 200);
  Span low = run_of(1000, 200);
  Span middle = run_of(5000, 200);
  for (Span* const run : {&middle, &high, &low}) index.insert(run);
  CHECK(index.best_fit(PageCount{150}) == &low);
  index.remove(&low);
  CHECK(index.best_fit(PageCount{150}) == &middle);
}

TEST_CASE("run index: the longest quiet run is found, of long ones only the longest") {
  RunIndex index;
  std::deque<Span> runs;
  const auto add = [&](std::size_t pages, std::uint8_t round) {
    runs.push_back(run_of(1000 * (runs.size() + 1), pages));
    runs.back().list_in(round);
    index.insert(&runs.back());
    return &runs.back();
  };
  constexpr std::uint8_t kNow = kQuietRounds + 1;
  CHECK(index.longest_quiet(kNow) == nullptr);
  const Span* const two = add(2, 1);
  CHECK(index.longest_quiet(kNow - 1) == nullptr);
  CHECK(index.longest_quiet(kNow) == two);
  add(2, 2);  // in front of the other
  CHECK(index.longest_quiet(kNow) == two);
  add(70, 2);
  const Span* const sixty = add(60, 255);
  CHECK(index.longest_quiet(kNow) == sixty);
  const Span* const longer = add(kBins, 1);
  CHECK(index.longest_quiet(kNow) == longer);
  add(kBins + 1, 2);
  CHECK(index.longest_quiet(kNow) == sixty);
}

TEST_CASE("run index: random runs come and go as in an ordered set", "[I3]") {
  const std::size_t longest = GENERATE(std::size_t{20}, 2 * kBins, std::size_t{100000});
  CAPTURE(longest);
  Pair pair;
  test::Random random(longest);
  std::deque<Span> storage;
  std::vector<Span*> inside;
  std::vector<Span*> outside;
  for (std::uintptr_t i = 0; i < 500; ++i) {
    storage.push_back(run_of((i + 1) << 20, 1));
    outside.push_back(&storage.back());
  }
  std::size_t wrong = 0;
  for (int step = 0; step < 20000; ++step) {
    // Mostly in for a while, then mostly out.
    const bool in = random.below(10) < (step / 1000 % 2 == 0 ? 7U : 3U);
    std::vector<Span*>& from = in ? outside : inside;
    if (from.empty()) continue;
    std::swap(from[random.below(from.size())], from.back());
    Span* const run = from.back();
    from.pop_back();
    if (in) {
      run->length = PageCount{1 + random.below(longest)};
      pair.insert(run);
      inside.push_back(run);
    } else {
      pair.remove(run);
      outside.push_back(run);
    }
    if (!pair.agrees_on_fit(1 + random.below(longest + 10))) ++wrong;
    if (step % 100 == 0 && !pair.agrees()) ++wrong;
  }
  CHECK(wrong == 0);
  while (!inside.empty()) {
    pair.remove(inside.back());
    inside.pop_back();
  }
  CHECK(pair.agrees());
  CHECK(pair.size() == 0);
}

// A span's list links are its children in the tree.
std::size_t depth_of(const RunIndex& index) {
  std::map<const Span*, const Span*> parent;
  index.for_each([&](const Span* run) {
    for (const Span* const child : {run->prev, run->next}) {
      if (child != nullptr) parent[child] = run;
    }
  });
  std::map<const Span*, std::size_t> depths;
  std::size_t deepest = 0;
  index.for_each([&](const Span* run) {
    std::vector<const Span*> path;
    const Span* node = run;
    while (node != nullptr && !depths.contains(node)) {
      path.push_back(node);
      const auto above = parent.find(node);
      node = above == parent.end() ? nullptr : above->second;
    }
    std::size_t depth = node == nullptr ? 0 : depths[node];
    for (; !path.empty(); path.pop_back()) depths[path.back()] = ++depth;
    deepest = std::max(deepest, depth);
  });
  return deepest;
}

TEST_CASE("run index: the tree stays shallow in whatever order runs come") {
  enum class Order { kLonger, kShorter, kHigher, kChunks };
  const Order order = GENERATE(Order::kLonger, Order::kShorter, Order::kHigher, Order::kChunks);
  CAPTURE(static_cast<int>(order));
  constexpr std::size_t kRuns = 20000;
  RunIndex index;
  std::deque<Span> runs;
  for (std::uintptr_t i = 0; i < kRuns; ++i) {
    switch (order) {
      case Order::kLonger:
        runs.push_back(run_of(i * 300, kBins + i));
        break;
      case Order::kShorter:
        runs.push_back(run_of(i * 300, kBins + kRuns - i));
        break;
      case Order::kHigher:
        runs.push_back(run_of(i * 300, 200));
        break;
      case Order::kChunks:  // at rounder addresses than any run of a heap has
        runs.push_back(run_of(i << 18, 200));
        break;
    }
    index.insert(&runs.back());
  }
  // A random tree of n nodes has an expected depth of about 2.99 ln n, here 30; a list has n.
  CHECK(depth_of(index) < 60);
  for (std::size_t i = 0; i < kRuns; i += 2) index.remove(&runs[i]);
  CHECK(depth_of(index) < 60);
}

TEST_CASE("run index: removing a long run that is not there is caught", "[I3]") {
  RunIndex index;
  Span inside = run_of(1000, 200);
  Span outside = run_of(5000, 300);
  index.insert(&inside);
  CHECK(test::check_fails([&] { index.remove(&outside); }));
}

}  // namespace
}  // namespace minitc
