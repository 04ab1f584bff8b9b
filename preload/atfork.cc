// Other libraries' fork handlers. Theirs run while our locks are free only if ours were registered
// first, so the heap starts with the first registration, if not before. (But for one before libc is
// initialised, by a program's own .preinit_array.)
#include <errno.h>

#include "core/heap.h"
#include "core/lock.h"
#include "preload/init.h"
#include "preload/interface.h"
#include "preload/next.h"

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

template <typename... Args>
int register_by(int (*next)(Args...), Args... args) {
  heap_is_usable();
  if (next == nullptr) return ENOMEM;
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

extern "C" {

#ifdef __GLIBC__

#ifdef __x86_64__
#define MINITC_ATFORK_VERSION "GLIBC_2.3.2"
#else
#define MINITC_ATFORK_VERSION "GLIBC_2.17"
#endif

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): glibc's name
// What pthread_atfork, which is in every program and library itself, calls. `dso`: of the caller,
// whose handlers go when it is unloaded.
MINITC_OWN("__register_atfork")
int own_register_atfork(Handler prepare, Handler parent, Handler child, void* dso) noexcept;

MINITC_EXPORT int __register_atfork(Handler prepare, Handler parent, Handler child,
                                    void* dso) noexcept {
  static constinit Next next("__register_atfork", MINITC_ATFORK_VERSION);
  return register_by(next.behind(own_register_atfork), prepare, parent, child, dso);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

#else

MINITC_OWN("pthread_atfork")
int own_pthread_atfork(Handler prepare, Handler parent, Handler child) noexcept;

// POSIX.
MINITC_EXPORT int pthread_atfork(Handler prepare, Handler parent, Handler child) noexcept {
  static constinit Next next("pthread_atfork", nullptr);
  return register_by(next.behind(own_pthread_atfork), prepare, parent, child);
}

#endif

}  // extern "C"
