// A region pool as a C++17 memory resource, for the containers of std::pmr:
//   minitc::PoolResource memory;
//   std::pmr::vector<std::pmr::string> words(&memory);
// What a container gives back stays in the pool until its end or its reset; large blocks are freed
// at once. As with every pool, one thread at a time.
#ifndef MINITC_POOL_HPP
#define MINITC_POOL_HPP

#include <cstddef>
#include <memory_resource>
#include <new>

#include "minitc.h"

namespace minitc {

class PoolResource : public std::pmr::memory_resource {
 public:
  // With a pool of its own. Throws std::bad_alloc if memory is refused, as allocate() does.
  explicit PoolResource(std::size_t first_chunk_bytes = 0)
      : pool_(minitc_pool_create(first_chunk_bytes)), owns_(true) {
    if (pool_ == nullptr) throw std::bad_alloc();
  }
  // On a pool that outlives this object.
  explicit PoolResource(minitc_pool_t& pool) noexcept : pool_(&pool), owns_(false) {}
  ~PoolResource() override {
    if (owns_) minitc_pool_destroy(pool_);
  }
  PoolResource(const PoolResource&) = delete;
  PoolResource& operator=(const PoolResource&) = delete;

  // For the C functions.
  minitc_pool_t* pool() const noexcept { return pool_; }
  // Frees what all containers have: none of them may be used any more.
  void reset() noexcept { minitc_pool_reset(pool_); }

 private:
  static constexpr std::size_t kAlign = 16;

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* const block = alignment <= kAlign ? minitc_pool_take(pool_, bytes)
                                            : minitc_pool_memalign(pool_, bytes, alignment);
    if (block == nullptr) throw std::bad_alloc();
    return block;
  }
  void do_deallocate(void* block, std::size_t bytes, std::size_t alignment) override {
    if (bytes > MINITC_POOL_SMALL || alignment > kAlign) minitc_pool_free_large(pool_, block);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  minitc_pool_t* const pool_;
  const bool owns_;
};

}  // namespace minitc

#endif
