// What several unit tests need: a child process to die in, heaps and tiers on a fake OS, memory
// patterns.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/central_cache.h"
#include "core/heap.h"
#include "core/metadata_arena.h"
#include "core/options.h"
#include "core/page_heap.h"
#include "core/page_map.h"
#include "core/thread_cache.h"
#include "test/unit/fake_os.h"

namespace minitc::test {

// --- Dying --------------------------------------------------------------------------------------

// Runs `body` in a forked child and says how that ended: "SIGABRT: " or "exit 0: " and what the
// child wrote to stderr, less what qemu adds to it. A child that hangs is ended by SIGALRM.
template <typename Body>
std::string ending_of(Body&& body) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    // Catch's handlers would report the test as failed; a core file would be litter.
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(number, SIG_DFL);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(20);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char buffer[512];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    said.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  if (const auto at = said.find("qemu: uncaught target signal"); at != std::string::npos) {
    said.erase(at, said.find('\n', at) - at + 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::string how = WIFSIGNALED(status) ? std::string("SIG") + sigabbrev_np(WTERMSIG(status))
                                        : "exit " + std::to_string(WEXITSTATUS(status));
  return how + ": " + said;
}

// What `body` writes to stderr.
template <typename Body>
std::string stderr_of(Body&& body) {
  const int said = memfd_create("stderr", 0);
  fcntl(said, F_SETFL, O_APPEND);  // several threads may write
  const int before = dup(STDERR_FILENO);
  dup2(said, STDERR_FILENO);
  body();
  dup2(before, STDERR_FILENO);
  close(before);
  std::string text(static_cast<std::size_t>(lseek(said, 0, SEEK_END)), '\0');
  if (pread(said, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) text = "?";
  close(said);
  return text;
}

// What die() in core makes of `text`.
inline std::string death(const std::string& text) { return "SIGABRT: libminitc: " + text + "\n"; }

inline std::string hex(const void* ptr) {
  char buffer[32];
  snprintf(buffer, sizeof(buffer), "0x%llx",
           static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(ptr)));
  return buffer;
}

// True if a child that runs `body` is killed by a failed MINITC_ASSERT or MINITC_CHECK.
template <typename Body>
bool check_fails(Body&& body) {
  return ending_of(body).rfind("SIGABRT: libminitc: internal error: ", 0) == 0;
}

// --- Memory -------------------------------------------------------------------------------------

inline bool all_bytes_are(const void* start, std::size_t bytes, unsigned char value) {
  const unsigned char* const p = static_cast<const unsigned char*>(start);
  return bytes == 0 || (p[0] == value && memcmp(p, p + 1, bytes - 1) == 0);
}
inline bool all_zero(const void* start, std::size_t bytes) {
  return all_bytes_are(start, bytes, 0);
}
inline void fill(const Span* span, unsigned char value) {
  memset(span->start.ptr(), value, span->length.bytes());
}

// A small generator with the same sequence everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t n = state_ += 0x9e3779b97f4a7c15U;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9U;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebU;
    return n ^ (n >> 31);
  }
  // 0 to n - 1.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }

 private:
  std::uint64_t state_;
};

// --- Threads ------------------------------------------------------------------------------------

// Each test program says this once. Reports read the cursors of other threads' caches while those
// threads move them, and are approximate by contract; another thread parks and robs a cache while
// its owner may be in a pop or a push (notes 2 and 7 of docs/locks.md). These races are expected.
// Their stacks must be remembered long enough to be recognised.
#if defined(TEST_TSAN)
#define TEST_THREAD_SANITIZER_OPTIONS()                                                 \
  extern "C" [[gnu::visibility("default")]] const char* __tsan_default_suppressions() { \
    return "race:minitc::ThreadCache::cached_objects\n"                                 \
           "race:minitc::ThreadCache::park\n"                                           \
           "race:minitc::ThreadCache::rob\n";                                           \
  }                                                                                     \
  extern "C" [[gnu::visibility("default")]] const char* __tsan_default_options() {      \
    return "history_size=5";                                                            \
  }
inline constexpr std::size_t kRounds = 1;  // every access costs ten times as much
#else
#define TEST_THREAD_SANITIZER_OPTIONS()
#if defined(TEST_ASAN)
inline constexpr std::size_t kRounds = 2;
#else
inline constexpr std::size_t kRounds = 4;
#endif
#endif

// Runs body(0), body(1), … each in a thread of its own, and waits for all.
template <typename Body>
void in_threads(std::size_t count, Body body) {
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

// --- Tiers --------------------------------------------------------------------------------------

// Tier 3 and what it stands on, with one kernel for pages and one for metadata.
struct Pages {
  explicit Pages(std::size_t page_bytes = 4096, std::size_t free_bound = 0,
                 FakeOs::Layout layout = FakeOs::Layout::kRising)
      : Pages(Options{.free_bound = free_bound}, page_bytes, layout) {}
  explicit Pages(const Options& options, std::size_t page_bytes = 4096,
                 FakeOs::Layout layout = FakeOs::Layout::kRising)
      : fake(page_bytes, layout), os(fake.os()), metadata_os(fake.metadata_os()) {
    arena.init(metadata_os);
    map->init(metadata_os);
    heap.init(os, arena, *map, options);
  }
  Span* large(std::size_t pages, std::size_t alignment = 1) {
    return heap.acquire_large(PageCount{pages}, PageCount{alignment});
  }
  // So that the heap asks for huge pages when it has become large.
  void free_written_block() {
    Span* const block = large(kMinHugeBytes / kPageBytes);
    fill(block, 1);
    release(block);
  }
  void ask_for_huge_pages() {
    free_written_block();
    while (heap.stats().in_use.bytes() < kMinHugeBytes) large(64);
    heap.review_huge_pages();
  }
  bool release(Span* span) {
    return heap.release_large(span->start.ptr()).verdict == Verdict::kLive;
  }
  Span* small(unsigned cls) { return heap.acquire_small(cls, 1).front(); }
  void release_small(Span* span) {
    SpanList list;
    list.push(span);
    heap.release_small(list);
  }
  // From now on the OS gives no memory for metadata, and what the arena still had is gone, for
  // blocks of 2^shift bytes and more.
  void exhaust_metadata(unsigned shift = MetadataArena::shift_of(sizeof(Span))) {
    fake.fail(OsCall::kMetadata, 1, kAlways);
    for (unsigned s = MetadataArena::kMaxShift; s >= shift; --s) {
      while (arena.allocate_block(s) != nullptr) {
      }
    }
  }
  // Bytes of pages that became metadata.
  std::size_t donated_bytes() const {
    return arena.reserved_bytes() + map->reserved_bytes() - fake.metadata_bytes();
  }
  // Every page that was taken from the OS is accounted for.
  bool adds_up() {
    return stats_add_up() && heap.stats().mapped.bytes() + donated_bytes() + fake.stuck_bytes() ==
                                 fake.mapped_bytes();
  }
  // What can be told while other threads make the heap grow.
  bool stats_add_up() {
    heap.check();
    const PageHeapStats s = heap.stats();
    return s.mapped == s.in_use + s.free + s.returned;
  }

  FakeOs fake;
  Os os;
  Os metadata_os;
  MetadataArena arena;
  std::unique_ptr<PageMap> map = std::make_unique<PageMap>();
  PageHeap heap;
};

// One more, for a thread of its own, while the first has two or more.
inline CentralCache* add_shard(Shards& shards) {
  shards.enter();
  shards.enter();
  return shards.move(shards.first(), kMaxShards);
}

// Tiers 2 and 3, and what thread caches share.
struct Tiers : Pages {
  explicit Tiers(std::ptrdiff_t budget_bytes = 32 * 1024 * 1024, std::size_t page_bytes = 4096,
                 bool ignores_bad_pointers = false)
      : Pages(page_bytes) {
    bad.init(ignores_bad_pointers);
    base = {.arena = &arena, .map = map.get(), .heap = &heap, .bad = &bad};
    shards->init(base);
    share.shards = shards.get();
    share.arena = &arena;
    share.now_ms = os.now_ms;
    share.budget_bytes = budget_bytes;
  }
  std::size_t refill(unsigned cls, void** out, std::size_t count) {
    return central[cls].refill(base, cls, out, count);
  }
  void check() {
    for (CentralCache& cache : shards->all()) cache.check();
    heap.check();
  }
  // Objects of all classes that are neither in spans nor in a store.
  std::size_t away() {
    std::size_t objects = 0;
    for (unsigned cls = 1; cls < kNumClasses; ++cls) {
      const CentralStats s = shards->stats(cls);
      objects += s.objects - s.free - s.stored;
    }
    return objects;
  }
  void trim() {
    for (CentralCache& cache : shards->all()) cache.trim();
  }

  BadPointers bad;
  CentralBase base;
  std::unique_ptr<Shards> shards = std::make_unique<Shards>();
  CentralCache* central = shards->first();
  CacheShare share;
};

// Of an object, what the reports count as live: of a large one its pages, which begin before it.
inline std::size_t counted_bytes(const void* object, std::size_t usable) {
  const std::size_t color = reinterpret_cast<std::uintptr_t>(object) % kPageBytes;
  return usable > kMaxSmall ? color + usable : usable;
}

// A heap for one test. The thread that makes it has no cache before and after.
class TestHeap {
 public:
  explicit TestHeap(const Os& os, const Options& options = {}) : heap_(std::make_unique<Heap>()) {
    t_cache = &g_no_cache;
    // A heap never gives its key back, and a process has 1024. Keys are handed out lowest first, so
    // the one that init() gets is the one that is free now.
    if (pthread_key_create(&key_, nullptr) == 0) pthread_key_delete(key_);
    ready_ = heap_->init(os, options);
    heap_->open();
  }
  ~TestHeap() {
    heap_->retire_cache();
    t_cache = &g_no_cache;
    if (ready_) pthread_key_delete(key_);
  }
  TestHeap(const TestHeap&) = delete;
  TestHeap& operator=(const TestHeap&) = delete;

  Heap* operator->() const { return heap_.get(); }
  Heap& operator*() const { return *heap_; }
  bool ready() const { return ready_; }
  // True if this thread has a cache of this heap, made the way that tells when a thread ends.
  bool has_cache() const {
    return t_cache != &g_no_cache && t_cache != &g_cache_gone &&
           pthread_getspecific(key_) == heap_.get();
  }

 private:
  std::unique_ptr<Heap> heap_;
  pthread_key_t key_ = 0;
  bool ready_ = false;
};

}  // namespace minitc::test
