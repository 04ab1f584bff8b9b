#include "core/heap.h"

#include <string.h>

#include <algorithm>
#include <atomic>

namespace minitc {

constinit ThreadCache g_no_cache;
constinit ThreadCache g_cache_gone;
constinit thread_local ThreadCache* t_cache = &g_no_cache;
constinit thread_local ThreadCache* t_leased_cache = nullptr;
constinit Heap g_heap;

namespace {

// What this thread freed before it had a cache.
[[gnu::tls_model("initial-exec")]] constinit thread_local std::uint32_t t_lone_frees = 0;

// While the slow path is at work on a cache, the thread has none: a signal handler that allocates
// then goes straight to the central cache. One that comes while a lease begins or ends may take and
// give back a lease of its own, and leaves all as it was.
class CacheLease {
 public:
  explicit CacheLease(ThreadCache* cache, bool (ThreadCache::*lease)() = &ThreadCache::lease)
      : cache_(cache), before_(t_leased_cache) {
    t_leased_cache = cache;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    t_cache = &g_cache_gone;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    is_held_ = (cache->*lease)();
  }
  ~CacheLease() {
    if (is_held_) cache_->end_lease();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    t_cache = cache_;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    t_leased_cache = before_;
  }
  // False while another thread is at work on the cache: this call has to do without.
  bool is_held() const { return is_held_; }
  CacheLease(const CacheLease&) = delete;
  CacheLease& operator=(const CacheLease&) = delete;

 private:
  ThreadCache* const cache_;
  ThreadCache* const before_;
  bool is_held_;
};

// The pages for a large object of `bytes`, with room for any color if it is long enough.
PageCount colored_pages(std::size_t bytes) {
  return PageCount::of_bytes(bytes + (bytes >= kMinColoredBytes ? kMaxColor : 0));
}

}  // namespace

bool Heap::init(const Os& os, const Options& options) {
  os_ = os;
  arena_.init(os_);
  map_.init(os_);
  pages_.init(os_, arena_, map_, options);
  bad_.init(options.on_bad_free == Options::kIgnore);
  shards_.init({.arena = &arena_, .map = &map_, .heap = &pages_, .bad = &bad_});
  share_.shards = &shards_;
  share_.arena = &arena_;
  share_.now_ms = os_.now_ms;
  share_.ticked_ms.store(os_.now_ms());
  cache_total_bytes_ = static_cast<std::ptrdiff_t>(options.thread_cache_total);
  share_.budget_bytes.store(cache_total_bytes_);
  const auto at_thread_exit = [](void* heap) { static_cast<Heap*>(heap)->retire_cache(); };
  processors_ = os_.processors();  // not later: a sandbox may kill the process for it
  const bool key_made = pthread_key_create(&exit_key_, at_thread_exit) == 0;
  use_caches_ = key_made && options.check_free == 0;
  return key_made;
}

[[gnu::always_inline]] inline void Heap::come_by(ThreadCache* cache) {
  if (!cache->is_tick_due()) return;
  if (cache->is_crowded()) spread(cache);
  tick();
}

// --- Allocation --------------------------------------------------------------------------------

void* Heap::allocate_slow(std::size_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes > kMaxSmall) return allocate_large(bytes, kMinAlign, /*zeroed=*/false);
  return allocate_small(class_of(bytes));
}

void* Heap::allocate_small(unsigned cls, bool* is_zero) {
  void* object = take_small(cls, is_zero);
  if (object == nullptr || pages_.take_pressure()) gather();
  return object != nullptr ? object : take_small(cls, is_zero);
}

void* Heap::take_small(unsigned cls, bool* is_zero) {
  if (ThreadCache* const cache = own_cache(); cache != nullptr) {
    come_by(cache);
    const CacheLease lease(cache);
    if (lease.is_held()) {
      return cache->is_empty(cls) ? cache->refill(cls, is_zero) : cache->pop(cls);
    }
  }
  if (!use_caches_) tick();
  void* object = nullptr;
  shards_.refill(shards_.first(), cls, &object, 1, is_zero);
  return object;
}

void* Heap::allocate_aligned(std::size_t bytes, std::size_t alignment) {
  const unsigned cls = aligned_class_of(bytes, alignment);
  if (cls != 0) return allocate(kSizeClasses[cls].bytes);
  return allocate_large(std::max(bytes, std::size_t{1}), alignment, /*zeroed=*/false);
}

void* Heap::allocate_zeroed(std::size_t bytes) {
  if (bytes > kMaxSmall) return allocate_large(bytes, kMinAlign, /*zeroed=*/true);
  bool is_zero = false;
  void* const object =
      bytes > kMaxClearedBytes ? allocate_small(class_of(bytes), &is_zero) : allocate(bytes);
  return object == nullptr || is_zero ? object : memset(object, 0, bytes);
}

void* Heap::allocate_large(std::size_t bytes, std::size_t alignment, bool zeroed) {
  if (bytes > PTRDIFF_MAX || alignment > PTRDIFF_MAX - bytes) return nullptr;
  const bool is_colored = alignment <= kColorBytes;
  const PageCount pages = is_colored ? colored_pages(bytes) : PageCount::of_bytes(bytes);
  const std::size_t room = is_colored ? pages.bytes() - bytes : 0;
  const PageCount aligned = PageCount::of_bytes(alignment);
  Span* span = pages_.acquire_large(pages, aligned, room);
  if (span == nullptr && pages <= pages_.servable()) {
    gather();
    span = pages_.acquire_large(pages, aligned, room);
  }
  if (span == nullptr) return nullptr;
  if (zeroed) pages_.clear(span, bytes);
  look_after();
  return span->object();
}

void Heap::look_after() {
  if (pages_.take_pressure()) gather();
  tick();
}

// --- Deallocation ------------------------------------------------------------------------------

void Heap::deallocate_slow(void* ptr, std::uintptr_t site) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(ptr);
  if (address == 0) return;
  const unsigned cls = map_.covers(address) ? map_.class_at(address) : 0;
  if (cls == 0) {
    tick();  // first: what was taken long ago is no reason to keep this
    const Finding finding = pages_.release_large(ptr);
    if (finding.verdict == Verdict::kLive) return;
    return bad_.report({Caller::kFree, site}, ptr, finding);
  }
  if (ThreadCache* const cache = cache_to_free(); cache != nullptr) {
    come_by(cache);
    const CacheLease lease(cache);
    if (lease.is_held()) return cache->spill(cls, ptr, site);
  }
  if (!use_caches_) tick();
  shards_.spill(cls, &ptr, 1, {Caller::kFree, site});
}

// --- Resizing ----------------------------------------------------------------------------------

void* Heap::resize(void* ptr, std::size_t bytes, std::uintptr_t site) {
  std::size_t old_bytes = small_size(ptr);
  const bool is_large = old_bytes == 0;
  if (is_large) old_bytes = size_or_report(ptr, {Caller::kRealloc, site});
  if (old_bytes == 0) return nullptr;
  if (bytes == 0) {
    deallocate(ptr);
    return nullptr;
  }
  // It stays where it is if it fits and would not leave more than half (of a large one, a quarter)
  // unused, or if a new one would be no smaller.
  const std::size_t least = is_large ? old_bytes / 4 * 3 : old_bytes / 2;
  const std::size_t rounded = is_large ? old_bytes - align_down(old_bytes - bytes, kPageBytes)
                              : bytes > kMaxSmall ? bytes
                                                  : kSizeClasses[class_of(bytes)].bytes;
  if (bytes <= old_bytes && (bytes >= least || rounded == old_bytes)) return ptr;
  if (is_large && bytes > kMaxSmall) {
    void* const object = resize_large(map_.span_at(PageId::of(ptr)), bytes);
    look_after();
    return object;
  }

  void* const object = allocate(bytes);
  if (object == nullptr) return bytes <= old_bytes ? ptr : nullptr;
  memcpy(object, ptr, std::min(old_bytes, usable_size(object)));
  deallocate(ptr);
  return object;
}

// Large to large: in place if the pages behind it are free, else by moving its pages, else by
// copying.
void* Heap::resize_large(Span* span, std::size_t bytes) {
  if (bytes > PTRDIFF_MAX) return nullptr;
  const PageCount pages = PageCount::of_bytes(bytes + span->color());
  if (pages_.resize_in_place(span, pages)) return span->object();
  const bool may_move = span->length.bytes() >= kMoveBytes && pages > span->length;
  const PageCount leaving = may_move ? span->length : PageCount{};
  Span* target = acquire_roomy(bytes, leaving);
  if (target == nullptr && pages > span->length && pages <= pages_.servable()) {
    gather();
    if (pages_.resize_in_place(span, pages)) return span->object();
    target = acquire_roomy(bytes, leaving);
  }
  if (target != nullptr && may_move) {
    bool lost;
    if (pages_.move_pages(span, target, lost)) return target->object();
    if (lost) target = acquire_roomy(bytes);
  }
  if (target == nullptr) return pages <= span->length ? span->object() : nullptr;
  memcpy(target->object(), span->object(), std::min(span->object_bytes(), target->object_bytes()));
  pages_.release_large(span->object());
  return target->object();
}

// What grew once will grow again: an eighth more address space, which costs no memory until used.
Span* Heap::acquire_roomy(std::size_t bytes, PageCount leaving) {
  const PageCount pages = colored_pages(bytes);
  const auto acquire = [&](PageCount length) {
    return pages_.acquire_large(length, kOnePage, pages.bytes() - bytes, leaving);
  };
  Span* const span = acquire(pages + PageCount{pages.value / 8});
  return span != nullptr ? span : acquire(pages);
}

std::size_t Heap::usable_size(const void* ptr, std::uintptr_t site) {
  const std::size_t small = small_size(ptr);
  return small != 0 ? small : size_or_report(ptr, {Caller::kUsableSize, site});
}

Finding Heap::find(const void* ptr) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(ptr);
  if (!map_.covers(address)) return {Verdict::kForeign};
  if (const unsigned cls = map_.class_at(address); cls != 0) return shards_.first()[cls].find(ptr);
  return pages_.find(ptr);
}

std::size_t Heap::size_or_report(const void* ptr, Call call) {
  const Finding finding = find(ptr);
  if (finding.verdict == Verdict::kLive) return finding.bytes;
  bad_.report(call, ptr, finding);
  return 0;
}

// --- The calling thread's cache -----------------------------------------------------------------

ThreadCache* Heap::own_cache() {
  return t_cache == &g_no_cache && use_caches_ ? adopt_cache() : current_cache();
}

// A thread that has only freed so far gets a cache after a while, but none if it may be past the
// point where its end is noticed. The first free asks for that notice: if the end had begun, it
// comes before the many frees that are waited for, or the thread frees a few objects more and is
// gone. There is one gap, the last round of destructors of other keys, which may free many objects:
// such a cache is left behind. So only so many exist at a time.
ThreadCache* Heap::cache_to_free() {
  if (t_cache != &g_no_cache || !use_caches_) return current_cache();
  if (t_lone_frees++ == 0) pthread_setspecific(exit_key_, this);
  if (t_lone_frees <= kLoneFrees) return nullptr;
  if (lone_caches_.load(std::memory_order_relaxed) >= kMaxLoneCaches) return nullptr;
  ThreadCache* const cache = adopt_cache();
  if (cache == nullptr) return nullptr;
  cache->lone = true;
  lone_caches_.fetch_add(1, std::memory_order_relaxed);
  return cache;
}

// --- The whole ---------------------------------------------------------------------------------

std::size_t Heap::trim() {
  gather();
  std::size_t bytes = pages_.trim();
  for (CentralCache& central : shards_.all()) {
    std::size_t spans = central.stats().partial_spans;
    bytes += central.return_pages(/*only_quiet=*/false, spans);
  }
  return bytes;
}

// A part of it: few enough spans that nobody has to wait for long.
void Heap::return_quiet() {
  std::size_t spans = kMaxQuiet;
  std::size_t left = quiet_left_.load(std::memory_order_relaxed);
  for (; left != 0; --left) {
    shards_.all()[left - 1].return_pages(/*only_quiet=*/true, spans);
    if (spans == 0) break;
  }
  quiet_left_.store(left, std::memory_order_relaxed);
}

void Heap::tick() {
  return_quiet();
  std::uint32_t last = share_.ticked_ms.load(std::memory_order_relaxed);
  const std::uint32_t now = os_.now_ms();
  if (!have_passed(kTickMs, last, now)) return;
  if (!share_.ticked_ms.compare_exchange_strong(last, now, std::memory_order_relaxed)) return;
  const bool is_time = pages_.age(now);
  pages_.review_huge_pages();
  if (is_time && pages_.returns_quiet()) {
    quiet_left_.store(shards_.all().size(), std::memory_order_relaxed);
  }
  if (share_.is_short.exchange(false, std::memory_order_relaxed) || is_time) rob_idle_caches();
}

void Heap::flush_cache() {
  if (ThreadCache* const cache = current_cache(); cache != nullptr) {
    const CacheLease lease(cache);
    if (lease.is_held()) cache->flush();
  }
}

void Heap::gather() {
  flush_cache();
  for (CentralCache& central : shards_.all()) central.trim();
}

const char* Heap::violation() {
  const char* broken = nullptr;
  if (ThreadCache* const cache = current_cache(); cache != nullptr) {
    // Another thread may be about to park it.
    const CacheLease lease(cache, &ThreadCache::lease_if_free);
    if (lease.is_held()) broken = cache->violation();
  }
  for (CentralCache& central : shards_.all()) {
    if (broken == nullptr) broken = central.violation();
  }
  if (broken == nullptr) broken = pages_.violation();
  if (broken == nullptr) broken = arena_.violation();
  return broken != nullptr ? broken : violation_under(threads_lock_, *this);
}

void Heap::check_caches() {
  const LockGuard guard(threads_lock_, *this);
  std::ptrdiff_t bytes = share_.budget_bytes.load(std::memory_order_relaxed);
  for (const ThreadCache* cache = threads_; cache != nullptr; cache = cache->next) {
    cache->check();
    bytes += static_cast<std::ptrdiff_t>(cache->drawn_bytes());
  }
  MINITC_CHECK(bytes == cache_total_bytes_);  // I10
}

// Of other threads' caches only the links: their owners change the rest without the lock.
const char* Heap::violation_locked(std::size_t& seen) const {
  const ThreadCache* last = nullptr;
  for (const ThreadCache* cache = threads_; cache != nullptr; cache = cache->next) {
    MINITC_EXPECT(cache->prev == last);
    last = cache;
    ++seen;
  }
  return nullptr;
}

}  // namespace minitc
