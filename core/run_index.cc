#include "core/run_index.h"

#include <bit>

namespace minitc {

void RunIndex::insert(Span* run) {
  pages_ += run->length;
  if (run->length.bytes() < kHugePageBytes) short_pages_ += run->length;
  const std::size_t n = run->length.value;
  if (n >= kBins) return insert_long(run);
  bins_[n].push(run);
  occupied_[n / 64] |= std::uint64_t{1} << (n % 64);
}

void RunIndex::remove(Span* run) {
  pages_ -= run->length;
  if (run->length.bytes() < kHugePageBytes) short_pages_ -= run->length;
  const std::size_t n = run->length.value;
  if (n >= kBins) return remove_long(run);
  bins_[n].remove(run);
  if (bins_[n].empty()) occupied_[n / 64] &= ~(std::uint64_t{1} << (n % 64));
}

Span* RunIndex::best_fit(PageCount pages) const {
  for (std::size_t n = pages.value; n < kBins; n = align_down(n, 64) + 64) {
    const std::uint64_t fitting = occupied_[n / 64] >> (n % 64);
    if (fitting != 0) return bins_[n + static_cast<std::size_t>(std::countr_zero(fitting))].front();
  }
  Span* best = nullptr;
  for (Span* node = root_; node != nullptr;) {
    if (node->length < pages) {
      node = right(node);
    } else {
      best = node;
      node = left(node);
    }
  }
  return best;
}

Span* RunIndex::next(const Span* run) const {
  if (run->length.value < kBins) {
    return run->next != nullptr ? run->next : best_fit(run->length + kOnePage);
  }
  Span* next = nullptr;
  for (Span* node = root_; node != nullptr;) {
    if (before(run, node)) {
      next = node;
      node = left(node);
    } else {
      node = right(node);
    }
  }
  return next;
}

// Calls is_wanted(run) for the last run of the tree and of each bin, the longest first; the first
// that is.
template <typename Test>
Span* RunIndex::find_longest(Test&& is_wanted) const {
  if (root_ != nullptr) {
    Span* node = root_;
    while (right(node) != nullptr) node = right(node);
    if (is_wanted(node)) return node;
  }
  for (std::size_t word = kBins / 64; word-- != 0;) {
    for (std::uint64_t left = occupied_[word]; left != 0;) {
      const std::size_t bit = static_cast<std::size_t>(std::bit_width(left)) - 1;
      Span* const run = bins_[word * 64 + bit].back();
      if (is_wanted(run)) return run;
      left ^= std::uint64_t{1} << bit;
    }
  }
  return nullptr;
}

Span* RunIndex::longest() const {
  return find_longest([](const Span*) { return true; });
}

Span* RunIndex::longest_quiet(std::uint8_t round) const {
  return find_longest([round](const Span* run) { return run->is_quiet(round); });
}

void RunIndex::insert_long(Span* run) {
  Span** link = &root_;
  while (*link != nullptr && priority(*link) >= priority(run)) {
    link = before(run, *link) ? &left(*link) : &right(*link);
  }
  // What hangs here is split around the new run.
  Span* rest = *link;
  *link = run;
  Span** smaller = &left(run);
  Span** larger = &right(run);
  while (rest != nullptr) {
    if (before(rest, run)) {
      *smaller = rest;
      smaller = &right(rest);
      rest = *smaller;
    } else {
      *larger = rest;
      larger = &left(rest);
      rest = *larger;
    }
  }
  *smaller = *larger = nullptr;
}

void RunIndex::remove_long(Span* run) {
  Span** link = &root_;
  while (*link != run) {
    MINITC_CHECK(*link != nullptr);  // I3
    link = before(run, *link) ? &left(*link) : &right(*link);
  }
  // Its two subtrees are merged into its place.
  Span* smaller = left(run);
  Span* larger = right(run);
  while (smaller != nullptr && larger != nullptr) {
    if (priority(smaller) >= priority(larger)) {
      *link = smaller;
      link = &right(smaller);
      smaller = *link;
    } else {
      *link = larger;
      link = &left(larger);
      larger = *link;
    }
  }
  *link = smaller != nullptr ? smaller : larger;
  left(run) = right(run) = nullptr;
}

}  // namespace minitc
