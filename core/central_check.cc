// CentralCache: whether its invariants hold.
#include <bit>

#include "core/central_cache.h"

namespace minitc {

const char* CentralCache::violation_locked(std::size_t& seen) const {
  void* const* const store = store_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < stored_; ++i) {
    const Place place = place_of(store[i]);
    MINITC_EXPECT(place.finding.verdict == Verdict::kLive);  // I7
    const std::uint64_t mask = Span::mask_of(place.index);
    MINITC_EXPECT((place.span->home_word(place.index) & mask) != 0);  // I7
    MINITC_EXPECT((place.span->free_word(place.index) & mask) == 0);  // I7
  }
  seen += stored_;
  std::size_t free = 0;
  std::size_t partial = 0;
  const std::uint32_t occupied = occupied_.load(std::memory_order_relaxed);
  for (std::size_t list = 0; list < kLists; ++list) {
    MINITC_EXPECT(lists_[list].empty() == ((occupied >> list & 1) == 0));  // I8
    for (Span* span = lists_[list].front(); span != nullptr; span = span->next) {
      if (const char* const broken = violation_of_locked(*span)) return broken;
      MINITC_EXPECT(span->backing != Backing::kReturning);                         // I8
      MINITC_EXPECT(list_of(*span, span->free_count) == list && list != kNoList);  // I8
      free += span->free_count;
      seen += span->words();
      ++partial;
    }
  }
  MINITC_EXPECT(partial == partial_spans_);  // I8
  for (Span* span = returning_.front(); span != nullptr; span = span->next) {
    if (const char* const broken = violation_of_locked(*span)) return broken;
    MINITC_EXPECT(span->backing == Backing::kReturning);  // I8
    free += span->free_count;
    seen += span->words();
  }
  for (const Span* span = fresh_.front(); span != nullptr; span = span->next) {
    MINITC_EXPECT(span->free_count == size_class().objects &&
                  span->backing == Backing::kResident);  // I8
    free += span->free_count;
    ++seen;
  }
  MINITC_EXPECT(free == free_objects_);  // I8
  return nullptr;
}

// Of the bitmaps of one span of this class.
const char* CentralCache::violation_of_locked(Span& span) const {
  std::size_t count = 0;
  for (std::size_t base = 0; base < size_class().objects; base += 64) {
    const std::uint64_t word = span.free_word(base);
    MINITC_EXPECT((word & ~span.home_word(base).load(std::memory_order_relaxed)) == 0);  // I7
    count += static_cast<std::size_t>(std::popcount(word));
  }
  MINITC_EXPECT(count == span.free_count);  // I8
  return nullptr;
}

SpanUse CentralCache::use_of(PageId start) {
  const LockGuard guard(lock_);
  Span* const span = span_of_page(start.ptr());
  if (span == nullptr || span->owner() != owner_ || span->start != start) return {};
  return {
      .is_mine = true, .free_objects = span->free_count, .violation = violation_of_locked(*span)};
}

}  // namespace minitc
