// The central caches of all classes, once for each shard: threads that stand in each other's way at
// one shard's locks are given one each. What they allocate and free then also stays in the caches
// of their processor.
//
// A program begins with one shard. A span is one shard's for as long as it is in use, and its
// objects go home to that one, whoever frees them.
//
// Thread safety: all methods may be called from any thread; those that say so, one at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <span>

#include "core/bad_pointer.h"
#include "core/base.h"
#include "core/central_cache.h"
#include "core/config.h"
#include "core/size_class.h"

namespace MINITC_HIDDEN minitc {

class Shards {
 public:
  constexpr Shards() = default;
  void init(const CentralBase& base) {
    base_ = base;
    count_.store(1, std::memory_order_relaxed);
  }

  // Of all shards there are; a class that has no objects in a shard has a cache without any, too.
  std::span<CentralCache> all() {
    return {caches_, count_.load(std::memory_order_acquire) * kNumClasses};
  }
  CentralCache& at(unsigned shard, unsigned cls) { return caches_[shard * kNumClasses + cls]; }
  // The caches of the first shard, by class.
  CentralCache* first() { return caches_; }

  // The next four one at a time. A thread begins with the first shard, and ends.
  void enter() { ++threads_[0]; }
  void leave(const CentralCache* shard) { --threads_[number_of(shard)]; }
  // A thread goes on from `shard` to one with the fewest threads: to a new one if all have some and
  // there are fewer than `most`.
  CentralCache* move(const CentralCache* shard, unsigned most);
  // In the child of a fork: there is one thread, which is in `shard`, or none.
  void forget_threads(const CentralCache* shard);
  // How often a thread has moved. At any time.
  unsigned moves() const { return moves_.load(std::memory_order_relaxed); }

  // CentralCache::refill() of the shard whose caches are `own`.
  std::size_t refill(CentralCache* own, unsigned cls, void** out, std::size_t count,
                     bool* is_zero = nullptr) {
    if (count_.load(std::memory_order_relaxed) != 1) [[unlikely]]
      return refill_or_borrow(own, cls, out, count, is_zero);
    return own[cls].refill(base_, cls, out, count, is_zero);
  }
  // CentralCache::spill() of the shard of each object.
  void spill(unsigned cls, void** objects, std::size_t count, Call call) {
    if (count_.load(std::memory_order_acquire) != 1) [[unlikely]]
      return spill_apart(cls, objects, count, call);
    caches_[cls].spill(objects, count, call);
  }

  // Of one class, in all shards.
  CentralStats stats(unsigned cls);

 private:
  std::size_t refill_or_borrow(CentralCache* own, unsigned cls, void** out, std::size_t count,
                               bool* is_zero);
  void spill_apart(unsigned cls, void** objects, std::size_t count, Call call);
  void open(unsigned count);
  unsigned number_of(const CentralCache* shard) const {
    return static_cast<unsigned>(shard - caches_) / kNumClasses;
  }

  CentralBase base_;
  // 1 from init() on. Not before: a heap that is all zero has no pages in the file.
  std::atomic<unsigned> count_{0};
  std::atomic<unsigned> moves_{0};
  unsigned threads_[kMaxShards] = {};
  std::atomic<unsigned> asked_{0};  // how often one was to lend something
  CentralCache caches_[kMaxShards * kNumClasses];
};

}  // namespace minitc
