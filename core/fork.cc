#include "core/fork.h"

namespace minitc {

// In the order of the ranks; the central locks, which are of one rank, by shard and class. No shard
// is opened meanwhile.
void ForkHold::prepare(Heap& heap) {
  heap.threads_lock_.lock_for_fork();
  for (CentralCache& central : heap.shards_.all()) central.lock().lock_for_fork();
  heap.pages_.lock().lock_for_fork();
  heap.arena_.lock().lock_for_fork();
}

void ForkHold::parent(Heap& heap) {
  heap.arena_.lock().unlock_after_fork();
  heap.pages_.lock().unlock_after_fork();
  for (CentralCache& central : heap.shards_.all()) central.lock().unlock_after_fork();
  heap.threads_lock_.unlock_after_fork();
}

void ForkHold::child(Heap& heap) MINITC_NO_THREAD_SAFETY_ANALYSIS {
  ThreadCache* own = t_leased_cache != nullptr ? t_leased_cache : current_cache();
  std::size_t held = 0;
  if (own != nullptr && !own->survives_fork()) {
    t_cache = &g_no_cache;
    own = nullptr;
  }
  if (own != nullptr) {
    own->prev = own->next = nullptr;
    held = own->drawn_bytes();
  }
  heap.threads_ = own;
  heap.next_look_ = nullptr;
  heap.shards_.forget_threads(own != nullptr ? own->shard() : nullptr);
  heap.lone_caches_.store(own != nullptr && own->lone ? 1 : 0, std::memory_order_relaxed);
  heap.share_.budget_bytes.store(heap.cache_total_bytes_ -
                                 static_cast<std::ptrdiff_t>(held));  // I10
  // Where a signal handler that interrupted a critical section forks, lists may be half changed.
  if (!inside_critical_section()) {
    for (CentralCache& central : heap.shards_.all()) central.adopt_returning();
    heap.pages_.adopt_returning();
  }
  parent(heap);
}

}  // namespace minitc
