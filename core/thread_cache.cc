#include "core/thread_cache.h"

#include <string.h>

#include <algorithm>
#include <bit>

namespace minitc {
namespace {

void** const kBeyondAll = reinterpret_cast<void**>(UINTPTR_MAX);

// The first capacity of a class in a thread, a power of two.
std::size_t first_capacity(const SizeClass& c) {
  const std::size_t wanted = std::max(kFirstCachedObjects, kFirstCachedBytes / c.bytes);
  return std::bit_floor(std::clamp<std::size_t>(kMostFirstBytes / c.bytes, 1, wanted));
}

}  // namespace

template <typename Visit>
void ThreadCache::for_each_class(Visit&& visit) {
  for (std::size_t word = 0; word < std::size(in_use_); ++word) {
    for (std::uint64_t bits = in_use_[word]; bits != 0; bits &= bits - 1) {
      visit(static_cast<unsigned>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits))));
    }
  }
}

// --- Owner and others --------------------------------------------------------------------------

bool ThreadCache::lease() {
  State state = state_.load(std::memory_order_relaxed);
  for (;;) {
    if (state == State::kTaken) return false;
    if (state_.compare_exchange_weak(state, State::kLeased, std::memory_order_acquire)) break;
  }
  if (state == State::kParked) unpark();
  if (state == State::kRobbed) start_anew();
  return true;
}

bool ThreadCache::lease_to_end() {
  while (!lease()) {
    State taken = State::kTaken;
    if (state_.compare_exchange_strong(taken, State::kAbandoned, std::memory_order_release)) {
      return false;
    }
  }
  return true;
}

bool ThreadCache::park() {
  State free = State::kFree;
  if (!state_.compare_exchange_strong(free, State::kTaken, std::memory_order_acquire)) return true;
  for_each_class([this](unsigned cls) {
    __atomic_store_n(&limit_[cls], base_[cls], __ATOMIC_RELAXED);
    __atomic_store_n(&floor_[cls], kBeyondAll, __ATOMIC_RELAXED);
  });
  parked_ms_ = share_->now_ms();  // not before: the caller may have been held up since
  if (put_back(State::kParked)) return true;
  unpark();
  return false;
}

// Ends what another thread did. False if the owner has gone meanwhile.
bool ThreadCache::put_back(State state) {
  State taken = State::kTaken;
  return state_.compare_exchange_strong(taken, state, std::memory_order_acq_rel);
}

void ThreadCache::unpark() {
  for_each_class([this](unsigned cls) {
    floor_[cls] = base_[cls];
    limit_[cls] = base_[cls] + capacity(cls);
  });
}

bool ThreadCache::take_if_idle() {
  State parked = State::kParked;
  return state_.load(std::memory_order_acquire) == parked &&
         have_passed(kIdleMs, parked_ms_, share_->now_ms()) &&
         state_.compare_exchange_strong(parked, State::kTaken, std::memory_order_acquire);
}

// What the owner did before it was parked has been visible for long. A pop or a push that it was
// stopped in may still come to its end, so the cursor may move by one meanwhile.
bool ThreadCache::rob() {
  std::ptrdiff_t left_bytes = 0;
  for_each_class([&](unsigned cls) {
    void** const cursor = __atomic_load_n(&cursor_[cls], __ATOMIC_RELAXED);
    std::size_t count = static_cast<std::size_t>(cursor - base_[cls]);
    if (count != 0) left_bytes += kSizeClasses[cls].bytes;
    if (count < 2) return;
    spill_array(cls, base_[cls], --count);
    __atomic_store_n(&limit_[cls], base_[cls] + count, __ATOMIC_RELAXED);
  });
  draw(left_bytes - drawn_bytes_.load(std::memory_order_relaxed));
  if (put_back(State::kRobbed)) return true;
  start_anew();
  return false;
}

// The owner of a robbed cache comes back: what is left is spilled, and all begins as at first.
void ThreadCache::start_anew() {
  for_each_class([this](unsigned cls) {
    spill_array(cls, limit_[cls], static_cast<std::size_t>(cursor_[cls] - limit_[cls]));
  });
  drop_arrays();
}

// What was in them is gone.
void ThreadCache::drop_arrays() {
  for_each_class([this](unsigned cls) {
    floor_[cls] = cursor_[cls] = base_[cls];
    set_array(cls, 0);
  });
  draw(-drawn_bytes_.load(std::memory_order_relaxed));
  share_->arena->take_back(spare_);
}

// --- Slow paths --------------------------------------------------------------------------------

void* ThreadCache::refill(unsigned cls, bool* is_zero) {
  if (floor_[cls] != base_[cls]) {  // not empty: what lies below the floor is wanted after all
    floor_[cls] = base_[cls];
    return pop(cls);
  }
  count_slow_call();
  const bool turned = turn(cls, /*to_frees=*/false);
  const std::uint16_t rested_ms = note_run(cls);
  if (!grow(cls, turned, rested_ms)) shrink(cls, rested_ms);
  const std::size_t room = capacity(cls);
  const std::size_t batch = kSizeClasses[cls].batch;
  if (room == 0 || is_zero != nullptr) {
    void* object = nullptr;
    share_->shards->refill(shard_, cls, &object, 1, is_zero);
    return object;
  }
  const std::size_t wanted = std::clamp(turned ? room / 2 : room, std::size_t{1}, batch);
  const std::size_t count = share_->shards->refill(shard_, cls, base_[cls], wanted);
  if (count == 0) return nullptr;
  cursor_[cls] = base_[cls] + count;
  return pop(cls);
}

void ThreadCache::spill(unsigned cls, void* ptr, std::uintptr_t site) {
  count_slow_call();
  if (is_full(cls)) {
    const bool turned = turn(cls, /*to_frees=*/true);
    const std::uint16_t rested_ms = note_run(cls);
    const std::size_t room = capacity(cls);
    // A thread's first object of a class came from another thread. If it were kept and handed out
    // again, the two might write to one cache line for long.
    const bool is_foreign = room == 0 && turned;
    if (is_foreign || !grow(cls, turned, rested_ms)) {
      if (room == 0) return share_->shards->spill(cls, &ptr, 1, {Caller::kFree, site});
      spill_oldest(cls, turned ? (room + 1) / 2 : room);
      shrink(cls, rested_ms);
    }
  }
  push(cls, ptr);
}

void ThreadCache::flush() {
  for_each_class([this](unsigned cls) {
    spill_array(cls, base_[cls], static_cast<std::size_t>(cursor_[cls] - base_[cls]));
  });
  drop_arrays();
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

// Notes when a stack ran full or empty; for how long it had not. A span of time that is longer than
// the clock counts may look short, and costs one growth.
std::uint16_t ThreadCache::note_run(unsigned cls) {
  const auto now = static_cast<std::uint16_t>(share_->ticked_ms.load(std::memory_order_relaxed));
  const auto rested_ms = static_cast<std::uint16_t>(now - ran_ms_[cls]);
  ran_ms_[cls] = now;
  return rested_ms;
}

// Doubles the capacity of a class, if it has none or is in need of more, and its bound, the budget
// and the arena allow.
bool ThreadCache::grow(unsigned cls, bool turned, std::uint16_t rested_ms) {
  const SizeClass& c = kSizeClasses[cls];
  const std::size_t max =
      turned ? c.max_cached : std::bit_ceil(std::max<std::size_t>(c.batch, kMinCachedObjects));
  const std::size_t now = capacity(cls);
  if (now != 0 && rested_ms >= kGrowMs) return false;
  return now < max && set_capacity(cls, now == 0 ? first_capacity(c) : now * 2);
}

// Halves the capacity of a class, if it runs full or empty so rarely that a shorter stack would do,
// and that would have room.
void ThreadCache::shrink(unsigned cls, std::uint16_t rested_ms) {
  const std::size_t now = capacity(cls);
  if (rested_ms < kShrinkMs || now <= first_capacity(kSizeClasses[cls])) return;
  if (cursor_[cls] - base_[cls] < static_cast<std::ptrdiff_t>(now / 2)) set_capacity(cls, now / 2);
}

// Adds to what the cache has of the budget, or takes from it. False, and nothing is changed, if too
// little is left: the cache would have more than its share.
bool ThreadCache::draw(std::ptrdiff_t bytes) {
  const std::ptrdiff_t left =
      share_->budget_bytes.fetch_sub(bytes, std::memory_order_relaxed) - bytes;
  const std::ptrdiff_t drawn = drawn_bytes_.load(std::memory_order_relaxed) + bytes;
  if (bytes > 0 && left < drawn / kMostOfBudget) {
    share_->budget_bytes.fetch_add(bytes, std::memory_order_relaxed);
    share_->is_short.store(true, std::memory_order_relaxed);
    return false;
  }
  drawn_bytes_.store(drawn, std::memory_order_relaxed);
  return true;
}

// What a cache may have is so many times what is left. So something is always left for the next,
// and what busy threads have becomes even.
bool ThreadCache::has_more_than_its_share() const {
  return share_->budget_bytes.load(std::memory_order_relaxed) <
         drawn_bytes_.load(std::memory_order_relaxed) / kMostOfBudget;
}

// Moves the stack of a class to an array of `objects` pointers (0 or a power of two, at least as
// many as are in it). False, and nothing is changed, if the budget or the arena does not allow it.
bool ThreadCache::set_capacity(unsigned cls, std::size_t objects) {
  const std::ptrdiff_t bytes =
      (static_cast<std::ptrdiff_t>(objects) - static_cast<std::ptrdiff_t>(capacity(cls))) *
      static_cast<std::ptrdiff_t>(kSizeClasses[cls].bytes);
  if (bytes > 0 && !draw(bytes)) return false;
  if (set_array(cls, objects)) {
    if (bytes < 0) draw(bytes);
    return true;
  }
  if (bytes > 0) draw(-bytes);
  return false;
}

// The same but for the budget.
bool ThreadCache::set_array(unsigned cls, std::size_t objects) {
  const std::size_t before = capacity(cls);
  const std::size_t used = static_cast<std::size_t>(cursor_[cls] - base_[cls]);
  MINITC_ASSERT(used <= objects);  // I9
  void** array = nullptr;
  if (objects != 0) {
    const unsigned shift = MetadataArena::shift_of(objects * sizeof(void*));
    void* const spare = spare_.pop(shift);
    array = static_cast<void**>(spare != nullptr ? spare : share_->arena->allocate_block(shift));
    if (array == nullptr) return false;
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
  width_[cls] = static_cast<std::uint8_t>(std::bit_width(objects));
  if (before != 0) {
    spare_.push(old, MetadataArena::shift_of(before * sizeof(void*)));
  }
  return true;
}

void ThreadCache::spill_array(unsigned cls, void** objects, std::size_t count) {
  const std::size_t batch = kSizeClasses[cls].batch;
  for (std::size_t done = 0; done < count; done += batch) {
    const std::size_t n = std::min(batch, count - done);
    share_->shards->spill(cls, objects + done, n, {Caller::kFreeLate, cls});
  }
}

void ThreadCache::spill_oldest(unsigned cls, std::size_t count) {
  void** const base = base_[cls];
  spill_array(cls, base, count);
  const std::size_t left = static_cast<std::size_t>(cursor_[cls] - base) - count;
  memmove(base, base + count, left * sizeof(void*));
  cursor_[cls] = base + left;
  floor_[cls] = base;
}

void ThreadCache::count_slow_call() {
  if (++slow_calls_ < kScavengePeriod) return;
  slow_calls_ = 0;
  const std::uint32_t now = share_->ticked_ms.load(std::memory_order_relaxed);
  const unsigned moves = share_->shards->moves();
  is_crowded_ = !has_moved_ && t_met_others >= kCrowdedMeetings && now - scavenged_ms_ <= kTickMs &&
                moves == moves_;
  scavenged_ms_ = now;
  moves_ = moves;  // a thread that was in the way may have gone
  t_met_others = 0;
  for_each_class([this](unsigned cls) { scavenge(cls); });
  share_->arena->take_back(spare_);
}

// Spills what the class has not needed since the last look, and gives up capacity that stays
// unused, or that others need more.
void ThreadCache::scavenge(unsigned cls) {
  if (has_more_than_its_share()) {
    const std::size_t half = capacity(cls) > kMinCachedObjects ? capacity(cls) / 2 : 0;
    const std::size_t in_all = static_cast<std::size_t>(cursor_[cls] - base_[cls]);
    if (in_all > half) spill_oldest(cls, in_all - half);
    set_capacity(cls, half);
    return;
  }
  const std::size_t slack = static_cast<std::size_t>(floor_[cls] - base_[cls]);
  if (slack != 0) spill_oldest(cls, slack);
  const std::size_t used = static_cast<std::size_t>(cursor_[cls] - base_[cls]);
  if ((slack != 0 || used == 0) && used * 4 <= capacity(cls)) {
    set_capacity(cls, used == 0 ? 0 : capacity(cls) / 2);
  }
  floor_[cls] = base_[cls] + (used + 1) / 2;
}

std::size_t ThreadCache::cached_objects(unsigned cls) const {
  void** const* const start = is_parked() ? &limit_[cls] : &base_[cls];
  const std::ptrdiff_t count =
      __atomic_load_n(&cursor_[cls], __ATOMIC_RELAXED) - __atomic_load_n(start, __ATOMIC_RELAXED);
  // Between two writes of the owner the difference may be of two arrays.
  return count < 0 || count > kSizeClasses[cls].max_cached ? 0 : static_cast<std::size_t>(count);
}

const char* ThreadCache::violation() const {
  std::size_t bytes = 0;
  for (unsigned cls = 0; cls < kNumClasses; ++cls) {
    MINITC_EXPECT((in_use_[cls / 64] >> (cls % 64) & 1) == (capacity(cls) != 0 ? 1 : 0));  // I9
    bytes += capacity(cls) * kSizeClasses[cls].bytes;
    if (is_parked()) continue;
    MINITC_EXPECT(base_[cls] <= floor_[cls] && floor_[cls] <= cursor_[cls]);  // I9
    MINITC_EXPECT(cursor_[cls] <= limit_[cls]);                               // I9
    MINITC_EXPECT(limit_[cls] == base_[cls] + capacity(cls));                 // I9
  }
  const bool is_robbed = state_.load(std::memory_order_relaxed) == State::kRobbed;
  MINITC_EXPECT(is_robbed ? drawn_bytes() <= bytes : drawn_bytes() == bytes);  // I10
  return nullptr;
}

}  // namespace minitc
