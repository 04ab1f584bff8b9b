// The C functions for region pools: argument rules and EINVAL. What they do is in minitc.h.

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/heap.h"
#include "core/region_pool.h"
#include "preload/init.h"
#include "preload/interface.h"
#include "preload/minitc.h"

namespace minitc {
namespace {

static_assert(kMaxPoolSmall == MINITC_POOL_SMALL);

RegionPool* pool_of(minitc_pool_t* pool) { return reinterpret_cast<RegionPool*>(pool); }

MINITC_HOT void* alloc(minitc_pool_t* pool, std::size_t bytes) {
  if (pool == nullptr) [[unlikely]]
    return RegionPool::refuse();
  return pool_of(pool)->allocate(bytes);
}

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

extern "C" {

minitc_pool_t* minitc_pool_create(std::size_t first_chunk_bytes) {
  void* const pool =
      heap_is_usable() ? RegionPool::create(g_heap, first_chunk_bytes) : RegionPool::refuse();
  return static_cast<minitc_pool_t*>(pool);
}

void minitc_pool_destroy(minitc_pool_t* pool) {
  if (pool != nullptr) pool_of(pool)->destroy();
}

void minitc_pool_reset(minitc_pool_t* pool) {
  if (pool != nullptr) pool_of(pool)->reset();
}

// In one cache line.
[[gnu::aligned(64)]] void* minitc_pool_alloc(minitc_pool_t* pool, std::size_t bytes) {
  return alloc(pool, bytes);
}

void* minitc_pool_calloc(minitc_pool_t* pool, std::size_t count, std::size_t size) {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || pool == nullptr) return RegionPool::refuse();
  return pool_of(pool)->allocate_zeroed(bytes);
}

void* minitc_pool_memalign(minitc_pool_t* pool, std::size_t bytes, std::size_t alignment) {
  if (!is_power_of_two(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return pool != nullptr ? pool_of(pool)->allocate_aligned(bytes, alignment) : RegionPool::refuse();
}

char* minitc_pool_strdup(minitc_pool_t* pool, const char* string) {
  const std::size_t bytes = strlen(string) + 1;
  void* const copy = alloc(pool, bytes);
  return static_cast<char*>(copy == nullptr ? nullptr : memcpy(copy, string, bytes));
}

int minitc_pool_free_large(minitc_pool_t* pool, void* block) {
  return pool != nullptr && pool_of(pool)->free_large(block) ? 1 : 0;
}

int minitc_pool_cleanup_add(minitc_pool_t* pool, void (*function)(void*), void* argument) {
  if (pool == nullptr) RegionPool::refuse();
  return pool != nullptr && pool_of(pool)->add_cleanup(function, argument) ? 0 : -1;
}

void minitc_pool_stats(minitc_pool_t* pool, minitc_pool_stats_t* stats, std::size_t size) {
  minitc_pool_stats_t all = {};
  if (pool != nullptr) {
    const RegionPoolStats own = pool_of(pool)->stats();
    all = {own.chunks, own.chunk_bytes, own.used_bytes, own.large_count, own.large_bytes};
  }
  memset(stats, 0, size);
  memcpy(stats, &all, std::min(size, sizeof(all)));
}

}  // extern "C"
