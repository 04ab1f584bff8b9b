#include "core/central_cache.h"

#include <string.h>

#include <algorithm>
#include <bit>

namespace minitc {
namespace {

// A bad pointer in a batch is tagged where it stands: as one of an object that is home already, or
// as one of no object. No address of the heap has these bits.
constexpr std::uintptr_t kFreedTag = std::uintptr_t{1} << 63;
constexpr std::uintptr_t kNoObjectTag = std::uintptr_t{1} << 62;
static_assert(kAddressBits < 62);

void tag(void*& ptr, std::uintptr_t bit) {
  ptr = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(ptr) | bit);
}

}  // namespace

// `out` is filled from its end, so that who pops from there gets rising addresses.
std::size_t CentralCache::refill(const CentralBase& base, unsigned cls, void** out,
                                 std::size_t count, bool* is_zero, Grow grow) {
  std::size_t from_store = 0;
  std::size_t left = count;
  SpanList made;
  for (bool first = true;; first = false) {
    std::size_t spans;
    {
      const LockGuard guard(lock_, *this);
      const std::size_t left_before = left;
      if (first) {
        if (cls_ == 0) open_locked(base, cls, 0);
        from_store = begin_refill_locked(out, count);
        left -= from_store;
      }
      add_spans_locked(made);
      while (Span* const span = left != 0 ? next_to_carve_locked() : nullptr) {
        if (is_zero != nullptr) *is_zero = span->zero;  // not of an object from the store
        left -= carve_locked(span, out + from_store, left);
      }
      refilled_ += left_before - left;
      spans = spans_;
    }
    if (left == 0 || grow == Grow::kNo) break;
    made = new_spans(left, spans);
    if (made.empty()) break;
  }
  const std::size_t carved = count - from_store - left;
  if (left != 0) memmove(out + from_store, out + from_store + left, carved * sizeof(void*));
  dismiss(out, from_store);
  return from_store + carved;
}

std::size_t CentralCache::lend(void** out, std::size_t count, bool only_quiet) {
  const LockGuard guard(lock_, *this);
  std::size_t left = count;
  while (left != 0) {
    Span* const span = only_quiet ? quiet_locked() : next_to_carve_locked();
    if (span == nullptr) break;
    left -= carve_locked(span, out, left);
  }
  refilled_ += count - left;
  if (left != 0) memmove(out, out + left, (count - left) * sizeof(void*));
  return count - left;
}

std::size_t CentralCache::spill(void** objects, std::size_t count, Call call) {
  const bool may_fit = count <= store_capacity();
  if (may_fit && store_.load(std::memory_order_relaxed) == nullptr) make_store();
  // What the store may take is marked outside the lock. The rest is marked and put into spans in
  // one walk; also where bad pointers are ignored, since their spans may be on their way out.
  const bool for_store =
      may_fit && !store_is_full_.load(std::memory_order_relaxed) && !base_.bad->ignored();
  bool all_good = true;
  const auto leave = [](Span&, std::size_t, std::uint64_t, std::size_t) {};
  if (for_store && !mark_home(objects, count, leave)) count = sort_tagged(objects, count, call);
  SpanList empties;
  {
    const LockGuard guard(lock_, *this);
    // Not before: another thread may have made it, and filled it, while this one waited.
    void** const store = store_.load(std::memory_order_acquire);
    const std::size_t room = store == nullptr ? 0 : store_room_locked();
    if (store != nullptr && for_store && stored_ + count <= room) {
      memcpy(store + stored_, objects, count * sizeof(void*));
      stored_ += count;
      return count;
    }
    store_is_full_.store(store != nullptr, std::memory_order_relaxed);
    if (for_store) {
      send_home_locked(objects, count, empties);
    } else {
      all_good = mark_home(
          objects, count,
          [&](Span& span, std::size_t index, std::uint64_t mask, std::size_t n)
              MINITC_NO_THREAD_SAFETY_ANALYSIS { put_locked(&span, index, mask, n, empties); });
    }
    if (stored_ > room) {
      send_home_locked(store + room, stored_ - room, empties);
      stored_ = room;
    }
  }
  delete_spans(empties);
  return all_good ? count : sort_tagged(objects, count, call);
}

void CentralCache::trim() {
  SpanList empties;
  {
    const LockGuard guard(lock_, *this);
    send_home_locked(store_.load(std::memory_order_relaxed), stored_, empties);
    stored_ = 0;
    while (Span* const span = fresh_.pop()) remove_span_locked(span, empties);
  }
  delete_spans(empties);
}

Finding CentralCache::find(const void* ptr) const {
  const Place place = place_of(ptr);
  if (place.finding.verdict != Verdict::kLive) return place.finding;
  const std::uint64_t home = place.span->home_word(place.index).load(std::memory_order_relaxed);
  if ((home & Span::mask_of(place.index)) != 0) return {Verdict::kFreed};
  return place.finding;
}

CentralStats CentralCache::stats() {
  const LockGuard guard(lock_, *this);
  // There are few of these.
  std::size_t whole = 0;  // free objects in spans of which all are free
  std::size_t returning = 0;
  for (const SpanList* const list : {&fresh_, &returning_}) {
    for (const Span* span = list->front(); span != nullptr; span = span->next) {
      if (span->free_count == size_class().objects) {
        whole += span->free_count;
      } else {
        ++returning;
      }
    }
  }
  return {.spans = spans_,
          .objects = spans_ * size_class().objects,
          .free = free_objects_,
          .stored = stored_,
          .refilled = refilled_,
          .partial_spans = partial_spans_ + returning,
          .partial_free = free_objects_ - whole};
}

// The small span of this class that `ptr` is in, or null.
Span* CentralCache::span_of(const void* ptr) const {
  Span* const span = span_of_page(ptr);
  return span != nullptr && span->cls() == cls_ ? span : nullptr;
}

bool CentralCache::is_of_other_shard(const void* ptr) const {
  const Span* const span = span_of(ptr);
  return span != nullptr && span->owner() != owner_;
}

// Decides by the pointer's place alone; whether the object is home is not looked at.
CentralCache::Place CentralCache::place_of(const void* ptr) const {
  Span* const span = span_of(ptr);
  if (span == nullptr) return {nullptr, 0, {Verdict::kStale}};
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(ptr);
  const std::size_t index = object_index(size_class(), address - span->start.address());
  if (index >= size_class().objects) return {nullptr, 0, {Verdict::kForeign}};
  const std::uintptr_t start = span->start.address() + index * size_class().bytes;
  const Verdict verdict = start == address ? Verdict::kLive : Verdict::kInterior;
  return {span, index, {verdict, start, size_class().bytes}};
}

// Calls visit(span, index, mask, first, last) for each stretch [first, last) of the pointers whose
// bits are in one word of a span's bitmaps, that of object `index`, each bit once. Batches were
// carved in order of address, so that stretches tend to be long. Stops at the first pointer that is
// not the beginning of an object of this cache; returns how many it has passed.
template <typename Visit>
std::size_t CentralCache::for_each_word(void** objects, std::size_t count, Visit&& visit) const {
  const SizeClass c = size_class();
  const std::size_t word_bytes = std::size_t{64} * c.bytes;
  const std::size_t span_bytes = std::size_t{c.objects} * c.bytes;
  const auto address_of = [](const void* ptr) { return reinterpret_cast<std::uintptr_t>(ptr); };
  Span* span = nullptr;
  std::uintptr_t start = 0;
  void** at = objects;
  void** const end = objects + count;
  while (at != end) {
    void** const first = at;
    // Freed at random, each object is in another span, whose lines are far away.
    if (end - at > 6) {
      if (const Span* const far = span_of_page(at[6])) __builtin_prefetch(far);
      if (const Span* const near = span_of_page(at[3])) __builtin_prefetch(near->bits, 1);
    }
    if (span == nullptr || address_of(*at) - start >= span_bytes) {
      span = span_of_page(*at);
      if (span == nullptr || span->owner() != owner_) [[unlikely]]
        break;
      start = span->start.address();
    }
    const std::size_t first_offset = address_of(*at) - start;
    const std::size_t first_index = object_index(c, first_offset);
    if (first_offset >= span_bytes || first_index * c.bytes != first_offset) [[unlikely]]
      break;
    std::uint64_t mask = Span::mask_of(first_index);
    const std::size_t word_offset = first_index / 64 * word_bytes;
    const std::size_t bytes = std::min(word_bytes, span_bytes - word_offset);
    while (++at != end) {
      const std::size_t offset = address_of(*at) - start - word_offset;
      const std::size_t index = object_index(c, offset);
      const std::uint64_t bit = Span::mask_of(index);
      if (offset >= bytes || index * c.bytes != offset || (mask & bit) != 0) break;
      mask |= bit;
    }
    visit(*span, first_index, mask, first, at);
  }
  return static_cast<std::size_t>(at - objects);
}

// Marks each object as home and calls put(span, index, mask, count) for those of one word. Tags
// pointers to no object of this cache, and to one that is home already; false if there are any.
template <typename Put>
bool CentralCache::mark_home(void** objects, std::size_t count, Put&& put) {
  bool all_good = true;
  const auto mark = [&](Span& span, std::size_t index, std::uint64_t mask, void** first,
                        void** last) {
    const std::uint64_t home_before =
        span.home_word(index).fetch_or(mask, std::memory_order_relaxed) & mask;  // I7
    if (home_before == 0) [[likely]]
      return put(span, index, mask, static_cast<std::size_t>(last - first));
    all_good = false;
    for (; first != last; ++first) {
      const std::size_t offset = reinterpret_cast<std::uintptr_t>(*first) - span.start.address();
      const std::uint64_t bit = Span::mask_of(object_index(size_class(), offset));
      if ((home_before & bit) != 0) tag(*first, kFreedTag);
    }
    mask &= ~home_before;
    if (mask != 0) put(span, index, mask, static_cast<std::size_t>(std::popcount(mask)));
  };
  std::size_t done = for_each_word(objects, count, mark);
  while (done != count) [[unlikely]] {
      all_good = false;
      tag(objects[done++], kNoObjectTag);
      done += for_each_word(objects + done, count - done, mark);
    }
  return all_good;
}

// Of the objects that are tagged, moves those of other shards to the end and reports the rest; how
// many objects stand before those that it has moved.
MINITC_COLD std::size_t CentralCache::sort_tagged(void** objects, std::size_t count,
                                                  Call call) const {
  for (std::size_t i = 0; i < count;) {
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(objects[i]);
    void* const ptr = reinterpret_cast<void*>(address & ~(kFreedTag | kNoObjectTag));
    if ((address & kNoObjectTag) != 0 && is_of_other_shard(ptr)) {
      objects[i] = objects[--count];
      objects[count] = ptr;
      continue;
    }
    if ((address & kFreedTag) != 0) base_.bad->report(call, ptr, {Verdict::kFreed});
    if ((address & kNoObjectTag) != 0) base_.bad->report(call, ptr, place_of(ptr).finding);
    ++i;
  }
  return count;
}

// Marks objects that were in the store as away.
void CentralCache::dismiss(void** objects, std::size_t count) {
  const std::size_t done = for_each_word(
      objects, count, [](Span& span, std::size_t index, std::uint64_t mask, void**, void**) {
        span.home_word(index).fetch_and(~mask, std::memory_order_relaxed);
      });
  MINITC_CHECK(done == count);  // I7
}

void CentralCache::open(const CentralBase& base, unsigned cls, unsigned shard) {
  const LockGuard guard(lock_, *this);
  if (cls_ == 0) open_locked(base, cls, shard);
}

// --- Under the lock ----------------------------------------------------------------------------

void CentralCache::open_locked(const CentralBase& base, unsigned cls, unsigned shard) {
  cls_ = cls;
  owner_ = Span::owner_of(cls, shard);
  base_ = base;
}

// Each object in the store may keep a span from going back, and the next refill takes it, however
// full its span. So it holds no more than a fraction of what the class has in use, and of objects
// that are few in a span next to none.
std::size_t CentralCache::store_room_locked() const {
  const std::size_t away = spans_ * size_class().objects - free_objects_ - stored_;
  return std::min(store_capacity(), least_stored() + away / 4);
}

// Notes who refills, and moves what the store has, up to `count` objects, to `out`; how many.
std::size_t CentralCache::begin_refill_locked(void** out, std::size_t count) {
  if (refiller_ != &t_met_others) {
    refiller_ = &t_met_others;
    ++t_met_others;
  }
  const std::size_t taken = std::min(count, stored_);
  stored_ -= taken;
  void* const* const store = store_.load(std::memory_order_relaxed);
  if (taken != 0) memcpy(out, store + stored_, taken * sizeof(void*));
  store_is_full_.store(false, std::memory_order_relaxed);
  return taken;
}

// Of each list the span is tried that has been there for the longest time, the fullest first.
Span* CentralCache::quiet_locked() const {
  const std::uint32_t occupied = occupied_.load(std::memory_order_relaxed);
  for (std::uint32_t left = occupied; left != 0; left &= left - 1) {
    Span* const span = lists_[std::countr_zero(left)].back();
    if (span->is_quiet(base_.heap->round())) return span;
  }
  return nullptr;
}

// Moves the span to the list that fits. What was returned may have memory from now on.
[[gnu::always_inline]] inline void CentralCache::change_free_count_locked(Span* span,
                                                                          std::size_t count) {
  const std::size_t before = span->free_count;
  const std::size_t all = size_class().objects;
  free_objects_ += count - before;
  span->free_count = static_cast<std::uint16_t>(count);
  // Two numbers have the same highest bit.
  const bool are_alike = (before ^ count) <= (before & count) && before != all && count != all;
  if (span->backing == Backing::kReturning || (are_alike && span->backing == Backing::kResident)) {
    return;
  }
  relist_locked(span, before);
}

[[gnu::noinline]] void CentralCache::relist_locked(Span* span, std::size_t before) {
  unlist_locked(span, list_of(*span, before));
  span->backing = Backing::kResident;
  list_locked(span, list_of(*span, span->free_count));
}

void CentralCache::list_locked(Span* span, std::size_t list) {
  if (list == kNoList) return;
  span->list_in(base_.heap->round());
  lists_[list].push(span);
  occupied_.store(occupied_.load(std::memory_order_relaxed) | 1U << list,
                  std::memory_order_relaxed);
  ++partial_spans_;
}

void CentralCache::unlist_locked(Span* span, std::size_t list) {
  if (list == kNoList) return;
  lists_[list].remove(span);
  if (lists_[list].empty()) {
    occupied_.store(occupied_.load(std::memory_order_relaxed) & ~(1U << list),
                    std::memory_order_relaxed);
  }
  --partial_spans_;
}

// Takes up to `count` objects out of the span, the lowest first. They are put down from the end of
// out[0 .. count), in falling order.
std::size_t CentralCache::carve_locked(Span* span, void** out, std::size_t count) {
  const std::size_t taken = std::min<std::size_t>(count, span->free_count);
  void** const end = out + count - taken;
  char* const start = span->start.ptr();
  const std::size_t bytes = size_class().bytes;
  out += count;
  for (std::size_t base = 0; out != end; base += 64) {
    std::uint64_t& word = span->free_word(base);
    std::uint64_t left = word;
    for (; left != 0 && out != end; left &= left - 1) {
      const std::size_t bit = static_cast<std::size_t>(std::countr_zero(left));
      *--out = start + (base + bit) * bytes;
    }
    if (left == word) continue;
    span->home_word(base).fetch_and(~(word ^ left), std::memory_order_relaxed);
    word = left;
  }
  change_free_count_locked(span, span->free_count - taken);
  return taken;
}

// Puts `count` objects of one word that are home, but in no span, into their span. One that is then
// all free goes to `empties`.
void CentralCache::put_locked(Span* span, std::size_t index, std::uint64_t mask, std::size_t count,
                              SpanList& empties) {
  MINITC_ASSERT((span->free_word(index) & mask) == 0);  // I7
  span->free_word(index) |= mask;
  span->zero = false;
  change_free_count_locked(span, span->free_count + count);
  if (span->free_count == size_class().objects && span->backing != Backing::kReturning) {
    remove_span_locked(span, empties);
  }
}

void CentralCache::send_home_locked(void** objects, std::size_t count, SpanList& empties) {
  const std::size_t done = for_each_word(
      objects, count,
      [&](Span& span, std::size_t index, std::uint64_t mask, void** first, void** last)
          MINITC_NO_THREAD_SAFETY_ANALYSIS {
            put_locked(&span, index, mask, static_cast<std::size_t>(last - first), empties);
          });
  MINITC_CHECK(done == count);  // I7
}

}  // namespace minitc
