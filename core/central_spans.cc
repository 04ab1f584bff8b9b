// CentralCache: how spans of a class come, with their bitmaps, and go; and its store.
#include <algorithm>

#include "core/central_cache.h"

namespace minitc {

// Spans for so many objects, or fewer, all of them free; a group if the class has many spans beside
// them. They get their class number under the lock.
SpanList CentralCache::new_spans(std::size_t objects, std::size_t held) {
  const std::size_t needed = (objects + size_class().objects - 1) / size_class().objects;
  const std::size_t group = kSpanGroupBytes / (size_class().pages * kPageBytes);
  const std::size_t wanted = std::max(needed, std::min(held >> kSpanGroupShift, group));
  SpanList spans = base_.heap->acquire_small(cls_, wanted, owner_ >> 8);
  if (wanted <= held >> kPopulateShift && size_class().bytes <= kMaxPopulatedBytes) {
    base_.heap->populate(spans);
  }
  SpanList without_bits;
  for (Span* span = spans.front(); span != nullptr;) {
    Span* const next = span->next;
    if (!make_bits(span)) {
      spans.remove(span);
      without_bits.push(span);
    }
    span = next;
  }
  base_.heap->release_small(without_bits);
  return spans;
}

// False if there is no memory for them.
bool CentralCache::make_bits(Span* span) {
  const std::size_t words = size_class().words();
  span->bits = span->own_bits;
  if (words > 1) {
    const unsigned shift = MetadataArena::shift_of(2 * words * sizeof(std::uint64_t));
    void* block = base_.arena->allocate_block(shift);
    if (block == nullptr && base_.heap->feed_arena()) block = base_.arena->allocate_block(shift);
    if (block == nullptr) return false;
    span->bits = static_cast<std::uint64_t*>(block);
  }
  const std::size_t objects = size_class().objects;
  for (std::size_t word = 0; word < words; ++word) {
    const std::size_t rest = objects - word * 64;
    const std::uint64_t all = rest >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << rest) - 1;
    span->bits[word] = span->bits[words + word] = all;
  }
  span->free_count = static_cast<std::uint16_t>(objects);
  return true;
}

void CentralCache::delete_spans(SpanList& empties) {
  if (empties.empty()) return;
  const std::size_t words = size_class().words();
  for (Span* span = empties.front(); words > 1 && span != nullptr; span = span->next) {
    base_.arena->deallocate_block(span->bits,
                                  MetadataArena::shift_of(2 * words * sizeof(std::uint64_t)));
  }
  base_.heap->release_small(empties);
}

// The store, if there is memory for it. Outside the lock, since the arena may have to ask the OS;
// of two threads that make one, one gives its own up.
void CentralCache::make_store() {
  const unsigned shift = MetadataArena::shift_of(store_capacity() * sizeof(void*));
  void** const made = static_cast<void**>(base_.arena->allocate_block(shift));
  if (made == nullptr) return;
  void** first = nullptr;
  if (store_.compare_exchange_strong(first, made, std::memory_order_release)) return;
  base_.arena->deallocate_block(made, shift);
}

void CentralCache::add_spans_locked(SpanList& spans) {
  while (Span* const span = spans.pop()) {
    span->set_owner(owner_);
    ++spans_;
    free_objects_ += span->free_count;
    fresh_.push(span);
  }
}

// Takes a span with all its objects free, which is in no list, out of the class.
void CentralCache::remove_span_locked(Span* span, SpanList& empties) {
  --spans_;
  free_objects_ -= span->free_count;
  span->set_owner(Span::owner_of(0, span->shard()));  // who frees of it again finds no span
  empties.push(span);
}

}  // namespace minitc
