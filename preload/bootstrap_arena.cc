#include "preload/bootstrap_arena.h"

#include <atomic>
#include <cstdint>
#include <new>

#include "core/base.h"
#include "core/os.h"

namespace minitc {
namespace {

constexpr std::size_t kFirstBytes = 64 * 1024;
constexpr std::size_t kExtensionBytes = 256 * 1024;

// In front of each block, and itself aligned as the block is to 16.
struct alignas(16) Header {
  std::size_t bytes;
};

// Lies at the beginning of the memory that it hands out. All zero it is the first one.
struct alignas(Header) Extent {
  std::size_t more = 0;  // bytes beyond kFirstBytes
  std::atomic<std::size_t> used{0};
  Extent* next = nullptr;

  std::size_t bytes() const { return kFirstBytes + more - sizeof(Extent); }
  char* start() { return reinterpret_cast<char*>(this + 1); }
  bool owns(const void* ptr) const {
    const std::uintptr_t offset =
        reinterpret_cast<std::uintptr_t>(ptr) - reinterpret_cast<std::uintptr_t>(this + 1);
    return offset < bytes();
  }

  void* allocate(std::size_t wanted, std::size_t alignment) {
    std::size_t before = used.load(std::memory_order_relaxed);
    for (;;) {
      const std::uintptr_t base = reinterpret_cast<std::uintptr_t>(start());
      const std::size_t block = align_up(base + before + sizeof(Header), alignment) - base;
      if (block > bytes() || wanted > bytes() - block) return nullptr;
      const std::size_t after = align_up(block + wanted, alignof(Header));
      if (used.compare_exchange_weak(before, after, std::memory_order_relaxed)) {
        reinterpret_cast<Header*>(start() + block)[-1].bytes = wanted;
        return start() + block;
      }
    }
  }
};

struct FirstExtent {
  Extent extent;
  char rest[kFirstBytes - sizeof(Extent)];
};
constinit FirstExtent first{};
std::atomic<Extent*> extensions{nullptr};

// A block out of a new extent, which others see when it is taken.
void* extend(std::size_t bytes, std::size_t alignment) {
  const std::size_t most = bytes + alignment + sizeof(Header);
  const std::size_t whole =
      align_up((most > kExtensionBytes ? most : kExtensionBytes) + sizeof(Extent), kPageBytes);
  void* const memory = reserve_from_kernel(whole);
  if (memory == nullptr) return nullptr;
  Extent* const extent = new (memory) Extent;
  extent->more = whole - kFirstBytes;
  void* const block = extent->allocate(bytes, alignment);
  extent->next = extensions.load(std::memory_order_relaxed);
  while (!extensions.compare_exchange_weak(extent->next, extent, std::memory_order_release)) {
  }
  return block;
}

Extent* owner_of(const void* ptr) {
  if (first.extent.owns(ptr)) return &first.extent;
  for (Extent* e = extensions.load(std::memory_order_acquire); e != nullptr; e = e->next) {
    if (e->owns(ptr)) return e;
  }
  return nullptr;
}

}  // namespace

void* bootstrap_allocate(std::size_t bytes, std::size_t alignment) {
  if (bytes == 0) bytes = 1;
  if (alignment < alignof(Header)) alignment = alignof(Header);
  if (bytes > PTRDIFF_MAX / 2 || alignment > PTRDIFF_MAX / 4) return nullptr;
  if (void* const block = first.extent.allocate(bytes, alignment); block != nullptr) return block;
  for (Extent* e = extensions.load(std::memory_order_acquire); e != nullptr; e = e->next) {
    if (void* const block = e->allocate(bytes, alignment); block != nullptr) return block;
  }
  return extend(bytes, alignment);
}

void* bootstrap_allocate_zeroed(std::size_t bytes) {
  void* const block = bootstrap_allocate(bytes, alignof(Header));
  // The newest block may have been used before. Volatile: no call to memset.
  volatile char* const start = static_cast<char*>(block);
  for (std::size_t i = 0; block != nullptr && i < bytes; ++i) start[i] = 0;
  return block;
}

bool bootstrap_owns(const void* ptr) { return owner_of(ptr) != nullptr; }

void bootstrap_deallocate(void* ptr) {
  Extent* const extent = owner_of(ptr);
  const std::size_t block = static_cast<std::size_t>(static_cast<char*>(ptr) - extent->start());
  std::size_t after = align_up(block + bootstrap_usable_size(ptr), alignof(Header));
  extent->used.compare_exchange_strong(after, block - sizeof(Header), std::memory_order_relaxed);
}

std::size_t bootstrap_usable_size(const void* ptr) {
  return static_cast<const Header*>(ptr)[-1].bytes;
}

void bootstrap_copy(void* to, const void* from, std::size_t bytes) {
  volatile char* const target = static_cast<char*>(to);
  const char* const source = static_cast<const char*>(from);
  for (std::size_t i = 0; i < bytes; ++i) target[i] = source[i];
}

}  // namespace minitc
