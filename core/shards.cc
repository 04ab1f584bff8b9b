#include "core/shards.h"

#include <algorithm>

namespace minitc {

CentralCache* Shards::move(const CentralCache* shard, unsigned most) {
  leave(shard);
  const unsigned count = count_.load(std::memory_order_relaxed);
  unsigned* to = std::min_element(threads_, threads_ + count);
  if (*to != 0 && count < std::min(most, kMaxShards)) {
    open(count + 1);
    to = threads_ + count;
  }
  ++*to;
  moves_.fetch_add(1, std::memory_order_relaxed);
  return &at(static_cast<unsigned>(to - threads_), 0);
}

// Objects are only brought to a cache that is open: from now on also to one that has never refilled
// a thread, since each shard may get objects of each class.
void Shards::open(unsigned count) {
  for (unsigned shard = 0; shard < count; ++shard) {
    for (unsigned cls = 1; cls < kNumClasses; ++cls) at(shard, cls).open(base_, cls, shard);
  }
  count_.store(count, std::memory_order_release);
}

void Shards::forget_threads(const CentralCache* shard) {
  std::fill(std::begin(threads_), std::end(threads_), 0);
  if (shard != nullptr) threads_[number_of(shard)] = 1;
}

// Before a shard grows another lends it what lies idle. One is asked, each in its turn, as a refill
// must not take long. If it cannot grow, all are, for whatever they have.
std::size_t Shards::refill_or_borrow(CentralCache* own, unsigned cls, void** out, std::size_t count,
                                     bool* is_zero) {
  if (kSizeClasses[cls].bytes > kMaxShardedBytes) {
    return caches_[cls].refill(base_, cls, out, count, is_zero);
  }
  CentralCache& cache = own[cls];
  const unsigned shards = count_.load(std::memory_order_acquire);
  const auto borrow = [&](unsigned turn, std::size_t done, bool only_quiet) {
    const unsigned lender = (number_of(own) + 1 + turn % (shards - 1)) % shards;
    return done + at(lender, cls).lend(out + done, count - done, only_quiet);
  };
  std::size_t done = cache.refill(base_, cls, out, count, is_zero, CentralCache::Grow::kNo);
  if (done == count) return done;
  done = borrow(asked_.fetch_add(1, std::memory_order_relaxed), done, /*only_quiet=*/true);
  if (done == count) return done;
  done += cache.refill(base_, cls, out + done, count - done, is_zero);
  for (unsigned turn = 0; done == 0 && turn < shards - 1; ++turn) {
    done = borrow(turn, done, /*only_quiet=*/false);
  }
  return done;
}

// Each shard that objects are of is asked in turn, and leaves the others' behind.
void Shards::spill_apart(unsigned cls, void** objects, std::size_t count, Call call) {
  while (count != 0) {
    const Span* const span = base_.map->span_at(PageId::of(*objects));
    // Of a bad pointer any shard, which will say so.
    CentralCache& cache = at(span != nullptr ? span->shard() : 0, cls);
    const std::size_t taken = cache.spill(objects, count, call);
    objects += taken;
    count -= taken;
  }
}

CentralStats Shards::stats(unsigned cls) {
  CentralStats sum = {};
  const std::size_t count = all().size() / kNumClasses;
  for (unsigned shard = 0; shard < count; ++shard) {
    const CentralStats s = at(shard, cls).stats();
    sum.spans += s.spans;
    sum.objects += s.objects;
    sum.free += s.free;
    sum.stored += s.stored;
    sum.refilled += s.refilled;
    sum.partial_spans += s.partial_spans;
    sum.partial_free += s.partial_free;
  }
  return sum;
}

}  // namespace minitc
