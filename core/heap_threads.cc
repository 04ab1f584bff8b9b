// Threads of a heap: they begin, move to other shards, go idle, and end.
#include "core/heap.h"

namespace minitc {

ThreadCache* Heap::adopt_cache() {
  t_cache = &g_cache_gone;  // for a signal handler that allocates meanwhile
  ThreadCache* const cache = arena_.create<ThreadCache>(share_);
  if (cache == nullptr) {
    t_cache = &g_no_cache;
    return nullptr;
  }
  {
    const LockGuard guard(threads_lock_, *this);
    shards_.enter();
    cache->next = threads_;
    if (threads_ != nullptr) threads_->prev = cache;
    threads_ = cache;
  }
  // The call below may allocate, and finds the cache there.
  t_cache = cache;
  if (pthread_setspecific(exit_key_, this) != 0) {
    retire_cache();
    return nullptr;
  }
  return cache;
}

void Heap::retire_cache() {
  ThreadCache* const cache = current_cache();
  t_cache = &g_cache_gone;
  if (cache != nullptr && cache->lease_to_end()) bury(cache);
}

void Heap::bury(ThreadCache* cache) {
  if (cache->lone) lone_caches_.fetch_sub(1, std::memory_order_relaxed);
  cache->flush();
  {
    const LockGuard guard(threads_lock_, *this);
    (cache->prev != nullptr ? cache->prev->next : threads_) = cache->next;
    if (cache->next != nullptr) cache->next->prev = cache->prev;
    if (next_look_ == cache) next_look_ = cache->next;
    shards_.leave(cache->shard());
  }
  arena_.destroy(cache);
}

// Where bad pointers are ignored there is one shard: whose an object is must be known before a lock
// is taken.
void Heap::spread(ThreadCache* cache) {
  if (bad_.ignored()) return;
  const LockGuard guard(threads_lock_, *this);
  if (!cache->is_crowded()) return;  // another has just moved
  cache->move_to(shards_.move(cache->shard(), processors_));
}

// Threads that have gone idle lose what they cached: to those that are short of it, and after a
// while because the spans of a few objects may be many. One round parks the caches that it comes
// by, a later one robs those that are still parked, a few at a time.
void Heap::rob_idle_caches() {
  const ThreadCache* const own = current_cache();
  std::size_t looks = 0;
  for (std::size_t robbed = 0; robbed < kMaxRobbed; ++robbed) {
    ThreadCache* found = nullptr;
    bool is_abandoned = false;
    {
      const LockGuard guard(threads_lock_, *this);
      for (; looks < kIdleLooks && found == nullptr; ++looks) {
        ThreadCache* const cache = next_look_ != nullptr ? next_look_ : threads_;
        if (cache == nullptr) return;
        next_look_ = cache->next;
        if (cache == own || cache->drawn_bytes() < kLeastRobbedBytes) continue;
        is_abandoned = !cache->park();
        if (is_abandoned || cache->take_if_idle()) found = cache;
      }
    }
    if (found == nullptr) return;
    if (is_abandoned || !found->rob()) bury(found);
  }
  share_.is_short.store(true, std::memory_order_relaxed);  // the next tick goes on
}

}  // namespace minitc
