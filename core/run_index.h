// Free runs by length: exact bins for short ones, a tree ordered by (length, address) for long
// ones. All but for_each take O(log n) or less.
//
// Thread safety: none; the page heap's lock guards it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/span.h"

namespace MINITC_HIDDEN minitc {

class RunIndex {
 public:
  void insert(Span* run);
  void remove(Span* run);
  // The shortest run of at least `pages`; among long ones of that length the lowest. Null if none.
  Span* best_fit(PageCount pages) const;
  // The one after `run` in that order, or null.
  Span* next(const Span* run) const;
  // Among short ones of that length the one that was inserted first. Null if there are none.
  Span* longest() const;
  // The longest that was listed kQuietRounds before `round`, or earlier, of those that longest()
  // gives for each bin and for all long ones together. Null if there is none.
  Span* longest_quiet(std::uint8_t round) const;

  // Sum of all lengths.
  PageCount pages() const { return pages_; }
  // Of those that are shorter than a huge page.
  PageCount short_pages() const { return short_pages_; }
  // Calls visit(Span*) for each run, in no particular order. For tests and check().
  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (const SpanList& bin : bins_) {
      for (Span* run = bin.front(); run != nullptr; run = run->next) visit(run);
    }
    visit_tree(root_, visit);
  }

 private:
  // A treap: a search tree by key that is a heap by priority, where a run's priority is a hash of
  // its address. That keeps it balanced with no field of its own; a span's list links are its
  // children.
  static Span*& left(Span* node) { return node->prev; }
  static Span*& right(Span* node) { return node->next; }
  static bool before(const Span* a, const Span* b) {
    return a->length != b->length ? a->length < b->length : a->start < b->start;
  }
  static std::uint64_t priority(const Span* node) {
    const std::uint64_t h = node->start.value * kGolden;
    return h ^ (h >> 32);
  }
  template <typename Visit>
  static void visit_tree(Span* node, Visit& visit) {
    if (node == nullptr) return;
    visit_tree(left(node), visit);
    visit_tree(right(node), visit);
    visit(node);
  }
  template <typename Test>
  Span* find_longest(Test&& is_wanted) const;
  void insert_long(Span* run);
  void remove_long(Span* run);

  SpanList bins_[kBins];                     // bins_[n]: runs of n pages
  std::uint64_t occupied_[kBins / 64] = {};  // bit n: bins_[n] is not empty
  Span* root_ = nullptr;
  PageCount pages_;
  PageCount short_pages_;
};
static_assert(kBins % 64 == 0);

}  // namespace minitc
