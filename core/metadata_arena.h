// Memory for the allocator's own data: blocks of power-of-two sizes, never from malloc.
//
// Thread safety: all methods may be called from any thread.
// Blocks are cut from chunks of address space that are never given back; a freed block is kept for
// the next request of its size.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <new>
#include <utility>

#include "core/base.h"
#include "core/lock.h"
#include "core/os.h"

namespace MINITC_HIDDEN minitc {

class MetadataArena {
 public:
  static constexpr unsigned kMinShift = 4;   // 16 bytes
  static constexpr unsigned kMaxShift = 12;  // 4 KiB: a ThreadCache

  constexpr MetadataArena() = default;
  void init(const Os& os) { os_ = &os; }

  // A block of 2^shift bytes aligned to the smaller of that and 64. Contents are undefined. What
  // precedes it in memory can be read. Null if the OS refuses.
  void* allocate_block(unsigned shift) MINITC_EXCLUDES(lock_);
  // The same of what the arena has: for who holds a lock, and has called refill_if_low() before.
  // Null if there is none.
  void* take_block(unsigned shift) MINITC_EXCLUDES(lock_);
  void deallocate_block(void* block, unsigned shift) MINITC_EXCLUDES(lock_);

  struct FreeBlock {
    FreeBlock* next;
  };
  // Free blocks of all sizes. An owner who keeps some for itself spares its thread the lock.
  struct Stock {
    // Null if there is none.
    void* pop(unsigned shift) {
      FreeBlock* const block = first[shift];
      if (block != nullptr) first[shift] = block->next;
      return block;
    }
    void push(void* block, unsigned shift) { first[shift] = new (block) FreeBlock{first[shift]}; }

    FreeBlock* first[kMaxShift + 1] = {};
  };
  // Takes all that is in the stock.
  void take_back(Stock& stock) MINITC_EXCLUDES(lock_);

  // Asks the OS for the next chunk, if this one is nearly used up. Not to be called under a lock.
  void refill_if_low() MINITC_EXCLUDES(lock_) {
    if (!is_stocked_.load(std::memory_order_relaxed)) refill();
  }
  // Makes kMetadataChunkBytes at `memory`, which is aligned to 64, the next chunk. For use when the
  // OS refuses one.
  void donate(void* memory) MINITC_EXCLUDES(lock_);

  template <typename T, typename... Args>
  T* create(Args&&... args) {
    return place<T>(allocate_block(shift_of(sizeof(T))), std::forward<Args>(args)...);
  }
  // The same by take_block().
  template <typename T, typename... Args>
  T* try_create(Args&&... args) {
    return place<T>(take_block(shift_of(sizeof(T))), std::forward<Args>(args)...);
  }
  template <typename T>
  void destroy(T* object) {
    deallocate_block(object, shift_of(sizeof(T)));
  }

  static constexpr unsigned shift_of(std::size_t bytes) {
    const unsigned shift = static_cast<unsigned>(std::bit_width(bytes - 1));
    return shift < kMinShift ? kMinShift : shift;
  }

  // Bytes taken from the OS or donated.
  std::size_t reserved_bytes() const { return reserved_bytes_.load(std::memory_order_relaxed); }

  // Says if a free block is not aligned as blocks of its size are; null if all are. Slow.
  const char* violation() MINITC_EXCLUDES(lock_) { return violation_under(lock_, *this); }
  // The same; counts the blocks.
  const char* violation_locked(std::size_t& seen) const MINITC_REQUIRES(lock_);

  RankedLock<LockRank::kMetadata>& lock() MINITC_RETURNS_LOCK(lock_) { return lock_; }

 private:
  static constexpr std::size_t kMaxAlignment = 64;

  static constexpr std::size_t alignment_of(unsigned shift) {
    return std::size_t{1} << shift < kMaxAlignment ? std::size_t{1} << shift : kMaxAlignment;
  }
  template <typename T, typename... Args>
  static T* place(void* block, Args&&... args) {
    static_assert(shift_of(sizeof(T)) <= kMaxShift);
    return block == nullptr ? nullptr : new (block) T(std::forward<Args>(args)...);
  }
  bool refill() MINITC_EXCLUDES(lock_);
  void add_chunk_locked(void* chunk) MINITC_REQUIRES(lock_);
  void begin_chunk_locked() MINITC_REQUIRES(lock_);
  void note_rest_locked() MINITC_REQUIRES(lock_);

  RankedLock<LockRank::kMetadata> lock_;
  const Os* os_ = nullptr;
  char* cursor_ MINITC_GUARDED_BY(lock_) = nullptr;
  char* limit_ MINITC_GUARDED_BY(lock_) = nullptr;
  char* next_ MINITC_GUARDED_BY(lock_) = nullptr;  // the chunk after this one
  std::atomic<bool> is_stocked_{false};            // not low
  Stock free_ MINITC_GUARDED_BY(lock_);
  std::atomic<std::size_t> reserved_bytes_{0};
};

}  // namespace minitc
