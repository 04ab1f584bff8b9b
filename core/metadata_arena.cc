#include "core/metadata_arena.h"

namespace minitc {

void* MetadataArena::allocate_block(unsigned shift) {
  for (;;) {
    if (void* const block = take_block(shift)) return block;
    if (!refill()) return nullptr;
  }
}

void* MetadataArena::take_block(unsigned shift) {
  MINITC_ASSERT(shift >= kMinShift && shift <= kMaxShift);
  const std::size_t bytes = std::size_t{1} << shift;
  const std::size_t alignment = alignment_of(shift);
  const LockGuard guard(lock_, *this);

  if (void* const block = free_.pop(shift)) return block;
  // What alignment or a new chunk leaves behind is less than a block and is let go.
  std::size_t skip = -reinterpret_cast<std::uintptr_t>(cursor_) & (alignment - 1);
  if (static_cast<std::size_t>(limit_ - cursor_) < skip + bytes) {
    if (next_ == nullptr) return nullptr;
    begin_chunk_locked();
    skip = 0;
  }
  void* const block = cursor_ + skip;
  cursor_ += skip + bytes;
  note_rest_locked();
  return block;
}

// Of two threads that find the chunk nearly used up one gives its new one back. False if the OS
// refuses.
bool MetadataArena::refill() {
  void* const chunk = os_->reserve(kMetadataChunkBytes);
  if (chunk == nullptr) return false;
  {
    const LockGuard guard(lock_, *this);
    if (next_ == nullptr) {
      add_chunk_locked(chunk);
      return true;
    }
  }
  os_->release(chunk, kMetadataChunkBytes);
  return true;
}

void MetadataArena::donate(void* memory) {
  const LockGuard guard(lock_, *this);
  if (next_ != nullptr) begin_chunk_locked();
  add_chunk_locked(memory);
}

void MetadataArena::add_chunk_locked(void* chunk) {
  next_ = static_cast<char*>(chunk);
  reserved_bytes_.fetch_add(kMetadataChunkBytes, std::memory_order_relaxed);
  note_rest_locked();
}

// Blocks are cut from the next chunk from now on. Its first line stays unused, for who looks at
// what precedes a block.
void MetadataArena::begin_chunk_locked() {
  cursor_ = next_ + kMaxAlignment;
  limit_ = next_ + kMetadataChunkBytes;
  next_ = nullptr;
}

void MetadataArena::note_rest_locked() {
  is_stocked_.store(next_ != nullptr || limit_ - cursor_ >= kLowMetadataBytes,
                    std::memory_order_relaxed);
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
