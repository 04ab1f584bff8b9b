#include "core/metadata_arena.h"

namespace minitc {

void* MetadataArena::allocate_block(unsigned shift) {
  MINITC_ASSERT(shift >= kMinShift && shift <= kMaxShift);
  const std::size_t bytes = std::size_t{1} << shift;
  const std::size_t alignment = alignment_of(shift);
  const LockGuard guard(lock_, *this);

  if (void* const block = free_.pop(shift)) return block;
  // What alignment or a new chunk leaves behind is less than a block and is let go.
  std::size_t skip = -reinterpret_cast<std::uintptr_t>(cursor_) & (alignment - 1);
  if (static_cast<std::size_t>(limit_ - cursor_) < skip + bytes) {
    char* const chunk = static_cast<char*>(os_->reserve(kMetadataChunkBytes));
    if (chunk == nullptr) return nullptr;
    cut_from(chunk, kMetadataChunkBytes);
    skip = 0;
  }
  void* const block = cursor_ + skip;
  cursor_ += skip + bytes;
  return block;
}

void MetadataArena::donate(void* memory, std::size_t bytes) {
  const LockGuard guard(lock_, *this);
  cut_from(static_cast<char*>(memory), bytes);
}

// The chunk becomes the one that blocks are cut from. Its first line stays unused, for who looks at
// what precedes a block.
void MetadataArena::cut_from(char* chunk, std::size_t bytes) {
  cursor_ = chunk + kMaxAlignment;
  limit_ = chunk + bytes;
  reserved_bytes_.fetch_add(bytes, std::memory_order_relaxed);
}

void MetadataArena::deallocate_block(void* block, unsigned shift) {
  MINITC_ASSERT(shift >= kMinShift && shift <= kMaxShift);
  const LockGuard guard(lock_, *this);
  free_.push(block, shift);
}

void MetadataArena::take_back(Stock& stock) {
  const LockGuard guard(lock_, *this);
  for (unsigned shift = kMinShift; shift <= kMaxShift; ++shift) {
    while (void* const block = stock.pop(shift)) free_.push(block, shift);
  }
}

const char* MetadataArena::violation() {
  const LockGuard guard(lock_);
  std::size_t seen = 0;
  return violation_locked(seen);
}

const char* MetadataArena::violation_locked(std::size_t& seen) const {
  MINITC_EXPECT(cursor_ <= limit_);
  for (unsigned shift = kMinShift; shift <= kMaxShift; ++shift) {
    for (const FreeBlock* block = free_.first[shift]; block != nullptr; block = block->next) {
      MINITC_EXPECT((reinterpret_cast<std::uintptr_t>(block) & (alignment_of(shift) - 1)) == 0);
      ++seen;
    }
  }
  return nullptr;
}

}  // namespace minitc
