// Other libraries' fork handlers. Theirs run while our locks are free only if ours were registered
// first, so the heap starts with the first registration, if not before. (But for one before libc is
// initialised, by a program's own .preinit_array.)
#include <dlfcn.h>
#include <errno.h>

#include <atomic>

#include "core/heap.h"
#include "core/lock.h"
#include "preload/init.h"
#include "preload/interface.h"

namespace minitc {
namespace {

using Handler = void (*)();

// While one exists, what this thread allocates and frees is the bootstrap arena's matter, which
// waits for nobody. libc holds a lock while its list of handlers grows by malloc, and in fork waits
// for that lock between the handlers, that is, with all of ours held (glibc 2.36).
class WithoutHeap {
 public:
  WithoutHeap() : cache_(t_cache), ranks_(t_ranks_held) {
    t_ranks_held |= kNoRank;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    t_cache = &g_cache_gone;
  }
  ~WithoutHeap() {
    t_cache = cache_;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    t_ranks_held = ranks_;
  }
  WithoutHeap(const WithoutHeap&) = delete;
  WithoutHeap& operator=(const WithoutHeap&) = delete;

 private:
  ThreadCache* const cache_;
  const std::uint32_t ranks_;
};

// libc's function. Found by the start, as to look for it takes the loader's lock: whoever holds
// that may wait for a thread that registers handlers. In .data, as what else the start writes.
[[gnu::section(".data")]] std::atomic<void*> next_atfork{nullptr};

template <typename... Args>
int register_by(void* (*find)(), Args... args) {
  void* function = next_atfork.load(std::memory_order_relaxed);
  if (function == nullptr) function = find();
  if (function == nullptr) return ENOMEM;
  next_atfork.store(function, std::memory_order_relaxed);
  const auto next = reinterpret_cast<int (*)(Args...)>(function);
  int failed;
  {
    const WithoutHeap scope;
    failed = next(args...);
  }
  // A list that libc itself has lengthened is the heap's.
  return failed == ENOMEM ? next(args...) : failed;
}

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

#ifdef __GLIBC__

#ifdef __x86_64__
#define MINITC_ATFORK_VERSION "GLIBC_2.3.2"
#else
#define MINITC_ATFORK_VERSION "GLIBC_2.17"
#endif

// By its version: the start comes here, and must not run another library's dlsym.
static void* find_atfork() { return dlvsym(RTLD_NEXT, "__register_atfork", MINITC_ATFORK_VERSION); }

int minitc::register_for_good(Handler prepare, Handler parent, Handler child) {
  return register_by<Handler, Handler, Handler, void*>(find_atfork, prepare, parent, child,
                                                       nullptr);
}

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): glibc's name
// What pthread_atfork, which is in every program and library itself, calls. `dso`: of the caller,
// whose handlers go when it is unloaded or the program ends; null: they stay.
extern "C" MINITC_EXPORT int __register_atfork(Handler prepare, Handler parent, Handler child,
                                               void* dso) noexcept {
  heap_is_usable();
  return register_by(find_atfork, prepare, parent, child, dso);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

#else

static void* find_atfork() { return dlsym(RTLD_NEXT, "pthread_atfork"); }

int minitc::register_for_good(Handler prepare, Handler parent, Handler child) {
  return register_by(find_atfork, prepare, parent, child);
}

// POSIX.
extern "C" MINITC_EXPORT int pthread_atfork(Handler prepare, Handler parent,
                                            Handler child) noexcept {
  heap_is_usable();
  return register_by(find_atfork, prepare, parent, child);
}

#endif
