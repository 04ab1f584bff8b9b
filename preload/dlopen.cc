// dlopen and dlmopen without RTLD_DEEPBIND.
//
// A plugin that is loaded with that flag looks its symbols up in its own dependencies first, libc
// among them: it gets libc's malloc and free, while the program has ours. So the flag is taken out
// on the way to the real function, unless MINITC_KEEP_DEEPBIND=1 is set.
//
// The real function looks at its return address to see who calls: that decides about RUNPATH,
// $ORIGIN and the namespace. So it is reached by a tail call, which leaves the caller's.

#include <dlfcn.h>

#include <atomic>

#include "core/heap.h"
#include "preload/init.h"
#include "preload/interface.h"

#if defined(RTLD_DEEPBIND) && defined(LM_ID_BASE)  // of glibc

namespace minitc {
namespace {

// The definition behind ours in the order of search, or null.
using Next = std::atomic<void*>;
Next next_dlopen{nullptr};
Next next_dlmopen{nullptr};

// `own`: ours. Another library's dlsym may call dlopen, and may mean by RTLD_NEXT what is behind
// itself, which may be ours: until the right one is known, or if it can't be, libc's is used.
MINITC_COLD void* find_next(Next& next, const char* symbol, const void* own) {
  next.store(dlvsym(RTLD_NEXT, symbol, "GLIBC_2.34"), std::memory_order_relaxed);
  void* const found = dlsym(RTLD_NEXT, symbol);
  if (found != nullptr && found != own) next.store(found, std::memory_order_relaxed);
  return next.load(std::memory_order_relaxed);
}

// Looked for at the first call only: at the start it would cost time, and run the code of other
// libraries that interpose dlsym.
void* known_or_found(Next& next, const char* symbol, const void* own) {
  void* const known = next.load(std::memory_order_relaxed);
  return known != nullptr ? known : find_next(next, symbol, own);
}

// `mode` as it is passed on.
int without_deepbind(int mode) {
  if ((mode & RTLD_DEEPBIND) == 0) return mode;
  heap_is_usable();  // reads the options
  if (g_options.keep_deepbind == 0) return mode & ~RTLD_DEEPBIND;
  g_heap.expect_deepbind();
  return mode;
}

extern "C" {
MINITC_OWN("dlopen") void* own_dlopen(const char* file, int mode) noexcept;
MINITC_OWN("dlmopen") void* own_dlmopen(Lmid_t space, const char* file, int mode) noexcept;
}

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

extern "C" {

// POSIX, glibc.
MINITC_EXPORT void* dlopen(const char* file, int mode) noexcept {
  void* const next =
      known_or_found(next_dlopen, "dlopen", reinterpret_cast<const void*>(own_dlopen));
  if (next == nullptr) return nullptr;  // the search has left its error for dlerror()
  return reinterpret_cast<void* (*)(const char*, int)>(next)(file, without_deepbind(mode));
}

// glibc. Namespaces but the first have a libc of their own and nothing of ours: there the flag may
// stay.
MINITC_EXPORT void* dlmopen(Lmid_t space, const char* file, int mode) noexcept {
  void* const next =
      known_or_found(next_dlmopen, "dlmopen", reinterpret_cast<const void*>(own_dlmopen));
  if (next == nullptr) return nullptr;
  return reinterpret_cast<void* (*)(Lmid_t, const char*, int)>(next)(
      space, file, space == LM_ID_BASE ? without_deepbind(mode) : mode);
}

}  // extern "C"

#endif
