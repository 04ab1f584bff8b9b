#include "core/region_pool.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <utility>

namespace minitc {
namespace {

// A signal handler that interrupted the heap gets nothing from it, and what it frees is lost.
void* allocate_object(Heap& heap, std::size_t bytes) {
  return inside_critical_section() ? nullptr : heap.allocate(bytes);
}

// AddressSanitizer's, where the program has it. Room is then poisoned, and behind each block some
// stays so, so that overruns and uses after a reset are found.
// NOLINTBEGIN(readability-identifier-naming): its names
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* start, std::size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* start, std::size_t bytes);
}
// NOLINTEND(readability-identifier-naming)

bool is_poisoned() { return __asan_poison_memory_region != nullptr; }
// Then each block has to pass the slow path: the fast path is shown no room.
bool hides_room() { return MINITC_IS_DEBUG || is_poisoned(); }
std::size_t red_zone_bytes() { return is_poisoned() ? kMinAlign : 0; }
void poison(const void* start, std::size_t bytes) {
  if (is_poisoned()) __asan_poison_memory_region(start, bytes);
}
void unpoison(const void* start, std::size_t bytes) {
  if (is_poisoned()) __asan_unpoison_memory_region(start, bytes);
}

}  // namespace

void* RegionPool::refuse() {
  errno = ENOMEM;
  return nullptr;
}

// --- Life ----------------------------------------------------------------------------------------

RegionPool::RegionPool(Heap& heap, Chunk* first) : heap_(heap), open_(first), last_(first) {
  empty(first);
  open(first);
  hold(first->bytes());
  heap.pool_totals().pools.fetch_add(1, std::memory_order_relaxed);
}

RegionPool* RegionPool::create(Heap& heap, std::size_t first_chunk_bytes) {
  Chunk* const chunk = make_chunk(heap, std::max(first_chunk_bytes, kMinPoolChunkBytes));
  if (chunk == nullptr) return static_cast<RegionPool*>(refuse());
  return new (chunk + 1) RegionPool(heap, chunk);
}

void RegionPool::destroy() {
  {
    const Use use(*this);
    run_cleanups("minitc_pool_destroy");
    free_larges();
  }
  tell(0);
  heap_.pool_totals().pools.fetch_sub(1, std::memory_order_relaxed);
  free_chunks(first()->next);
  first()->next = nullptr;
  free_chunks(first());  // the last: the pool lies in it
}

void RegionPool::reset() {
  const Use use(*this);
  if (cleanups_ != nullptr) [[unlikely]]
    run_cleanups("minitc_pool_reset");
  free_larges();
  held_bytes_ = first()->bytes();
  cursor_ = first_block();
  if (first()->next != nullptr || hides_room()) [[unlikely]]
    reset_chunks();
  if (--resets_left_ == 0) forget_peak();
}

// Empties the first chunks, as many as may stay, and frees the others.
void RegionPool::reset_chunks() {
  empty(first());
  last_ = first();
  while (last_->next != nullptr && held_bytes_ + last_->next->bytes() <= kPoolKeptBytes) {
    last_ = last_->next;
    held_bytes_ += last_->bytes();
    empty(last_);
  }
  free_chunks(last_->next);
  last_->next = nullptr;
  open_ = first();
  open(open_);
}

// They may use the pool, and what they add is run as well. The one that runs stays in the list, so
// that there is one as long as this goes on.
void RegionPool::run_cleanups(const char* function) {
  if (is_clearing_) die_of_cleanup(function);
  is_clearing_ = true;
  while (Cleanup* const cleanup = cleanups_) {
    if (Function* const run = std::exchange(cleanup->run, nullptr)) {
      run(cleanup->argument);
    } else {
      cleanups_ = cleanup->next;
    }
  }
  is_clearing_ = false;
}

MINITC_COLD void RegionPool::die_of_cleanup(const char* function) {
  die(Text() << function << '(' << this << "): called by a cleanup function of the same pool");
}

bool RegionPool::enter(std::uintptr_t& outer) {
  outer = user_.exchange(this_holder(), std::memory_order_relaxed);
  if (outer != 0 && outer != this_holder()) {
    die(Text() << "pool " << this << ": used by two threads at a time");
  }
  return true;
}

bool RegionPool::leave(std::uintptr_t outer) {
  user_.store(outer, std::memory_order_relaxed);
  return true;
}

// --- Small blocks --------------------------------------------------------------------------------

void* RegionPool::allocate_small(std::size_t bytes, std::size_t alignment) {
  const Use use(*this);
  const std::size_t cut = align_up(std::max(bytes, std::size_t{1}), kMinAlign) + red_zone_bytes();
  current_->cursor = cursor_;
  Chunk* const chunk = chunk_with(cut + alignment - kMinAlign);
  if (chunk == nullptr) return refuse();
  const std::size_t skipped = -reinterpret_cast<std::uintptr_t>(chunk->cursor) & (alignment - 1);
  char* const block = chunk->cursor + skipped;
  chunk->cursor = block + cut;
  open(chunk);
  unpoison(block, bytes);
  return block;
}

void* RegionPool::allocate_zeroed(std::size_t bytes) {
  const Use use(*this);
  if (bytes > kMaxPoolSmall) {
    return remember(inside_critical_section() ? nullptr : heap_.allocate_zeroed(bytes), bytes);
  }
  void* const block = allocate(bytes);
  return block == nullptr ? nullptr : memset(block, 0, bytes);
}

void* RegionPool::allocate_aligned(std::size_t bytes, std::size_t alignment) {
  const Use use(*this);
  if (alignment <= kMinAlign) return allocate(bytes);
  if (bytes <= kMaxPoolSmall && alignment - kMinAlign <= kMaxPoolSmall - bytes) {
    return allocate_small(bytes, alignment);
  }
  return remember(inside_critical_section() ? nullptr : heap_.allocate_aligned(bytes, alignment),
                  bytes);
}

// Nothing has been cut from `chunk`.
void RegionPool::empty(Chunk* chunk) {
  static_assert(sizeof(Chunk) % kMinAlign == 0 && sizeof(RegionPool) % kMinAlign == 0);
  static_assert(sizeof(Chunk) + sizeof(RegionPool) < kMinPoolChunkBytes);
  chunk->cursor = chunk == first() ? first_block() : reinterpret_cast<char*>(chunk + 1);
  chunk->failures = 0;
  poison(chunk->cursor, chunk->room());
}

// All of the object that a request for so many bytes gets, so that nothing of it is wasted.
RegionPool::Chunk* RegionPool::make_chunk(Heap& heap, std::size_t bytes) {
  if (bytes > PTRDIFF_MAX - kPageBytes) return nullptr;
  bytes = bytes > kMaxSmall ? align_up(bytes, kPageBytes) : kSizeClasses[class_of(bytes)].bytes;
  char* const start = static_cast<char*>(allocate_object(heap, bytes));
  return start == nullptr ? nullptr : new (start) Chunk{nullptr, start, start + bytes, 0};
}

// From now on blocks are cut from `chunk`.
void RegionPool::open(Chunk* chunk) {
  current_ = chunk;
  cursor_ = chunk->cursor;
  limit_ = hides_room() ? cursor_ : chunk->end;
}

// A chunk with room for so many bytes; null if memory is refused.
RegionPool::Chunk* RegionPool::chunk_with(std::size_t bytes) {
  if (current_->room() >= bytes) return current_;
  Chunk* const chunk = find_chunk(bytes);
  return chunk != nullptr ? chunk : add_chunk(bytes);
}

// The first chunk with so much room that is not passed over. An earlier chunk is asked whenever a
// later one is and has failed at least as often, so those to be passed over are the first ones.
RegionPool::Chunk* RegionPool::find_chunk(std::size_t bytes) {
  Chunk* chunk = open_;
  for (; chunk != nullptr && chunk->room() < bytes; chunk = chunk->next) {
    if (++chunk->failures == kPoolChunkFailures) open_ = chunk->next;
  }
  return chunk;
}

RegionPool::Chunk* RegionPool::add_chunk(std::size_t bytes) {
  const std::size_t doubled = std::min(2 * last_->bytes(), kMaxPoolChunkBytes);
  Chunk* const chunk = make_chunk(heap_, std::max(doubled, sizeof(Chunk) + bytes));
  if (chunk == nullptr) return nullptr;
  empty(chunk);
  last_->next = chunk;
  last_ = chunk;
  if (open_ == nullptr) open_ = chunk;
  hold(chunk->bytes());
  return chunk;
}

// Frees `chunk` and those behind it.
void RegionPool::free_chunks(Chunk* chunk) {
  while (chunk != nullptr) {
    Chunk* const next = chunk->next;
    unpoison(chunk, chunk->bytes());
    give_back(chunk);
    chunk = next;
  }
}

// If the program has freed the object behind the pool's back, that is said once per pool.
MINITC_HOT void RegionPool::give_back(void* object) {
  heap_.deallocate(object, [this](void* ptr) {
    if (inside_critical_section()) return;
    heap_.deallocate_slow(ptr, reinterpret_cast<std::uintptr_t>(this));
  });
}

// --- Large blocks --------------------------------------------------------------------------------

// Where the thread's cache has a block, and the chunk room for its node, nothing is called: then
// this needs no frame.
void* RegionPool::allocate_slow(std::size_t bytes) {
  if (bytes <= kMaxPoolSmall) [[unlikely]]
    return allocate_small(bytes);
  char* const node = cursor_;
  char* const next = node + sizeof(Large);
  if (spare_ != nullptr || next > limit_) [[unlikely]]
    return allocate_large(bytes);
  const auto slow = [this](std::size_t n) { return allocate_large(n); };
  return heap_.allocate(bytes, slow, [=, this](void* block, unsigned) {
    cursor_ = next;
    return enlist(node, block, bytes);
  });
}

void* RegionPool::allocate_large(std::size_t bytes) {
  const Use use(*this);
  return remember(allocate_object(heap_, bytes), bytes);
}

// Gives `block` a node and returns it; if memory for that is refused, frees it.
void* RegionPool::remember(void* block, std::size_t bytes) {
  if (block == nullptr) return refuse();
  void* node = spare_;
  if (node != nullptr) {
    spare_ = spare_->next;
  } else {
    node = allocate(sizeof(Large));
    if (node == nullptr) {
      give_back(block);
      return refuse();
    }
  }
  return enlist(node, block, bytes);
}

MINITC_HOT void* RegionPool::enlist(void* node, void* block, std::size_t bytes) {
  Large* const large = new (node) Large;
  large->next = larges_;
  large->block = block;
  large->bytes = bytes;
  larges_ = large;
  hold(bytes);
  return block;
}

MINITC_HOT void RegionPool::free_larges() {
  for (const Large* large = larges_; large != nullptr; large = large->next) {
    if (large->block != nullptr) give_back(large->block);
  }
  larges_ = nullptr;
  if (entered_ != nullptr) entered_ = trie_ = spare_ = nullptr;
}

bool RegionPool::free_large(void* ptr) {
  const Use use(*this);
  if (ptr == nullptr) return false;
  enter_larges();
  Large* const large = *way_of(ptr, ptr);
  if (large == nullptr) return false;
  held_bytes_ -= large->bytes;
  large->block = nullptr;
  give_back(ptr);
  return true;
}

// Enters the new nodes into the trie. A node that is there already and has lost its block takes the
// block of a new one whose way leads past it, so that there are never many more nodes than blocks.
void RegionPool::enter_larges() {
  Large** link = &larges_;
  while (*link != entered_) {
    Large* const large = *link;
    Large** const place = way_of(large->block, nullptr);
    if (*place == nullptr) {
      large->child[0] = large->child[1] = nullptr;
      *place = large;
      link = &large->next;
    } else {
      (*place)->block = large->block;
      (*place)->bytes = large->bytes;
      *link = large->next;
      large->next = spare_;
      spare_ = large;
    }
  }
  entered_ = larges_;
}

// Follows the way of `block` through the trie to the first node that has `wanted`, or to its end.
// No two blocks have the same way, so it is at most 64 nodes long, and commonly a few.
RegionPool::Large** RegionPool::way_of(const void* block, const void* wanted) {
  std::uint64_t way = reinterpret_cast<std::uintptr_t>(block) * kGolden;
  Large** place = &trie_;
  for (; *place != nullptr && (*place)->block != wanted; way <<= 1) {
    place = &(*place)->child[way >> 63];
  }
  return place;
}

// --- Cleanups and figures ------------------------------------------------------------------------

bool RegionPool::add_cleanup(Function* run, void* argument) {
  const Use use(*this);
  void* const memory = allocate(sizeof(Cleanup));
  if (memory == nullptr) return false;
  cleanups_ = new (memory) Cleanup{cleanups_, run, argument};
  return true;
}

RegionPoolStats RegionPool::stats() {
  const Use use(*this);
  current_->cursor = cursor_;
  RegionPoolStats stats = {};
  for (const Chunk* chunk = first(); chunk != nullptr; chunk = chunk->next) {
    ++stats.chunks;
    stats.chunk_bytes += chunk->bytes();
    stats.used_bytes += chunk->bytes() - chunk->room();
  }
  for (const Large* large = larges_; large != nullptr; large = large->next) {
    if (large->block != nullptr) ++stats.large_count;
  }
  stats.large_bytes = held_bytes_ - stats.chunk_bytes;
  return stats;
}

void RegionPool::check() {
  const RegionPoolStats s = stats();  // brings the cursor of the chunk in use up to date
  bool is_passed_over = open_ != first();
  for (const Chunk* chunk = first(); chunk != nullptr; chunk = chunk->next) {
    if (chunk == open_) is_passed_over = false;
    MINITC_CHECK(chunk->cursor <= chunk->end && chunk->room() % kMinAlign == 0);
    MINITC_CHECK((chunk->failures >= kPoolChunkFailures) == is_passed_over);
    MINITC_CHECK(chunk->next == nullptr ? chunk == last_
                                        : chunk->next->failures <= chunk->failures);
  }
  std::size_t large_bytes = 0;
  bool is_entered = false;
  for (const Large* large = larges_; large != nullptr; large = large->next) {
    if (large == entered_) is_entered = true;
    if (large->block != nullptr) large_bytes += large->bytes;
    MINITC_CHECK(!is_entered || large->block == nullptr ||
                 *way_of(large->block, large->block) == large);
  }
  MINITC_CHECK(large_bytes == s.large_bytes && counted_bytes_ >= held_bytes_);
}

// The pool holds so much more. The heap is told, but not of each change: threads would wait for
// each other's cache line. A pool that takes no more than before its last resets has nothing new.
MINITC_HOT void RegionPool::hold(std::size_t bytes) {
  held_bytes_ += bytes;
  if (held_bytes_ > peak_bytes_) note_peak();
}

void RegionPool::note_peak() {
  peak_bytes_ = held_bytes_;
  if (peak_bytes_ > counted_bytes_) tell(peak_bytes_);
}

void RegionPool::forget_peak() {
  if (peak_bytes_ < counted_bytes_) tell(peak_bytes_);
  peak_bytes_ = held_bytes_;
  resets_left_ = kPoolPeakResets;
}

void RegionPool::tell(std::size_t bytes) {
  heap_.pool_totals().bytes.fetch_add(bytes - counted_bytes_, std::memory_order_relaxed);
  counted_bytes_ = bytes;
}

}  // namespace minitc
