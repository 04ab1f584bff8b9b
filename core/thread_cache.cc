#include "core/thread_cache.h"

#include <string.h>

#include <algorithm>
#include <bit>

namespace minitc {

template <typename Visit>
void ThreadCache::for_each_class(Visit&& visit) {
  for (std::size_t word = 0; word < std::size(in_use_); ++word) {
    for (std::uint64_t bits = in_use_[word]; bits != 0; bits &= bits - 1) {
      visit(static_cast<unsigned>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits))));
    }
  }
}

void* ThreadCache::refill(unsigned cls) {
  if (floor_[cls] != base_[cls]) {  // not empty: what lies below the floor is wanted after all
    floor_[cls] = base_[cls];
    return pop(cls);
  }
  count_slow_call();
  const bool turned = turn(cls, /*to_frees=*/false);
  grow(cls, turned);
  const std::size_t room = capacity(cls);
  const std::size_t batch = kSizeClasses[cls].batch;
  if (room == 0) {
    void* object = nullptr;
    return refill(cls, &object, 1) == 0 ? nullptr : object;
  }
  const std::size_t count =
      refill(cls, base_[cls], std::clamp(turned ? room / 2 : room, std::size_t{1}, batch));
  if (count == 0) return nullptr;
  cursor_[cls] = base_[cls] + count;
  return pop(cls);
}

void ThreadCache::spill(unsigned cls, void* ptr, std::uintptr_t site) {
  count_slow_call();
  if (is_full(cls)) {
    const bool turned = turn(cls, /*to_frees=*/true);
    const std::size_t room = capacity(cls);
    // A thread's first object of a class came from another thread. If it were kept and handed out
    // again, the two might write to one cache line for long.
    const bool is_foreign = room == 0 && turned;
    if (is_foreign || !grow(cls, turned)) {
      if (room == 0) return central(cls).spill(&ptr, 1, {Caller::kFree, site});
      spill_oldest(cls, turned ? room / 2 : room);
    }
  }
  push(cls, ptr);
}

void ThreadCache::flush() {
  for_each_class([this](unsigned cls) {
    spill_oldest(cls, static_cast<std::size_t>(cursor_[cls] - base_[cls]));
    set_capacity(cls, 0);
  });
}

// Notes whether a stack ran full or empty; true if it was the other way round the last time. If
// not, the thread only allocates or only frees such objects: then batches are to be whole, and a
// longer stack would keep more memory and gain nothing.
bool ThreadCache::turn(unsigned cls, bool to_frees) {
  const std::uint64_t bit = std::uint64_t{1} << (cls % 64);
  std::uint64_t& word = ran_full_[cls / 64];
  if (((word & bit) != 0) == to_frees) return false;
  word ^= bit;
  return true;
}

// Doubles the capacity of a class, if its bound, the budget and the arena allow.
bool ThreadCache::grow(unsigned cls, bool turned) {
  const SizeClass& c = kSizeClasses[cls];
  const std::size_t max = turned ? c.max_cached : std::max<std::size_t>(c.batch, kMinCachedObjects);
  const std::size_t now = capacity(cls);
  const std::size_t first = std::max(kFirstCachedObjects, kFirstCachedBytes / c.bytes);
  return now < max && set_capacity(cls, now == 0 ? std::min(std::bit_floor(first), max) : now * 2);
}

// Moves the stack of a class to an array of `objects` pointers (0 or a power of two, at least as
// many as are in it). False, and nothing is changed, if the budget or the arena does not allow it.
bool ThreadCache::set_capacity(unsigned cls, std::size_t objects) {
  const std::size_t before = capacity(cls);
  const std::size_t used = static_cast<std::size_t>(cursor_[cls] - base_[cls]);
  const std::ptrdiff_t bytes =
      (static_cast<std::ptrdiff_t>(objects) - static_cast<std::ptrdiff_t>(before)) *
      static_cast<std::ptrdiff_t>(kSizeClasses[cls].bytes);
  MINITC_ASSERT(used <= objects);  // I9
  if (share_->budget_bytes.fetch_sub(bytes, std::memory_order_relaxed) < bytes && bytes > 0) {
    share_->budget_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return false;
  }
  void** array = nullptr;
  if (objects != 0) {
    array = static_cast<void**>(
        share_->base.arena->allocate_block(MetadataArena::shift_of(objects * sizeof(void*))));
    if (array == nullptr) {
      share_->budget_bytes.fetch_add(bytes, std::memory_order_relaxed);
      return false;
    }
    if (used != 0) memcpy(array, base_[cls], used * sizeof(void*));
  }
  void** const old = base_[cls];
  const std::uint64_t bit = std::uint64_t{1} << (cls % 64);
  if (objects != 0) {
    in_use_[cls / 64] |= bit;
  } else {
    in_use_[cls / 64] &= ~bit;
  }
  floor_[cls] = array + (floor_[cls] - old);
  cursor_[cls] = array + used;
  limit_[cls] = array + objects;
  base_[cls] = array;
  if (before != 0) {
    share_->base.arena->deallocate_block(old, MetadataArena::shift_of(before * sizeof(void*)));
  }
  return true;
}

void ThreadCache::spill_oldest(unsigned cls, std::size_t count) {
  void** const base = base_[cls];
  const std::size_t batch = kSizeClasses[cls].batch;
  for (std::size_t done = 0; done < count; done += batch) {
    central(cls).spill(base + done, std::min(batch, count - done), {Caller::kFreeLate, cls});
  }
  const std::size_t left = static_cast<std::size_t>(cursor_[cls] - base) - count;
  memmove(base, base + count, left * sizeof(void*));
  cursor_[cls] = base + left;
  floor_[cls] = base;
}

void ThreadCache::count_slow_call() {
  if (++slow_calls_ < kScavengePeriod) return;
  slow_calls_ = 0;
  for_each_class([this](unsigned cls) { scavenge(cls); });
}

// Spills what the class has not needed since the last look, and gives up capacity that stays
// unused.
void ThreadCache::scavenge(unsigned cls) {
  const std::size_t slack = static_cast<std::size_t>(floor_[cls] - base_[cls]);
  if (slack != 0) spill_oldest(cls, slack);
  const std::size_t used = static_cast<std::size_t>(cursor_[cls] - base_[cls]);
  if ((slack != 0 || used == 0) && used * 4 <= capacity(cls)) {
    set_capacity(cls, used == 0 ? 0 : capacity(cls) / 2);
  }
  floor_[cls] = base_[cls] + (used + 1) / 2;
}

std::size_t ThreadCache::cached_objects(unsigned cls) const {
  const std::ptrdiff_t count = __atomic_load_n(&cursor_[cls], __ATOMIC_RELAXED) -
                               __atomic_load_n(&base_[cls], __ATOMIC_RELAXED);
  // Between two writes of the owner the difference may be of two arrays.
  return count < 0 || count > kSizeClasses[cls].max_cached ? 0 : static_cast<std::size_t>(count);
}

std::size_t ThreadCache::capacity_bytes() const {
  std::size_t bytes = 0;
  for (unsigned cls = 1; cls < kNumClasses; ++cls) bytes += capacity(cls) * kSizeClasses[cls].bytes;
  return bytes;
}

const char* ThreadCache::violation() const {
  for (unsigned cls = 0; cls < kNumClasses; ++cls) {
    MINITC_EXPECT(base_[cls] <= floor_[cls] && floor_[cls] <= cursor_[cls]);               // I9
    MINITC_EXPECT(cursor_[cls] <= limit_[cls]);                                            // I9
    MINITC_EXPECT(capacity(cls) == 0 || is_power_of_two(capacity(cls)));                   // I9
    MINITC_EXPECT((in_use_[cls / 64] >> (cls % 64) & 1) == (capacity(cls) != 0 ? 1 : 0));  // I9
  }
  return nullptr;
}

}  // namespace minitc
