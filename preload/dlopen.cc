// dlopen and dlmopen without RTLD_DEEPBIND.
//
// A plugin that is loaded with that flag looks its symbols up in its own dependencies first, libc
// among them: it gets libc's malloc and free, while the program has ours. So the flag is taken out
// on the way to the real function, unless MINITC_KEEP_DEEPBIND=1 is set.
//
// The real function looks at its return address to see who calls: that decides about RUNPATH,
// $ORIGIN and the namespace. So it is reached by a tail call, which leaves the caller's.

#include <dlfcn.h>

#include "core/heap.h"
#include "preload/init.h"
#include "preload/interface.h"
#include "preload/next.h"

#if defined(RTLD_DEEPBIND) && defined(LM_ID_BASE)  // of glibc

namespace minitc {
namespace {

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

constinit Next next_dlopen("dlopen", "GLIBC_2.34");
constinit Next next_dlmopen("dlmopen", "GLIBC_2.34");

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

extern "C" {

// POSIX, glibc.
MINITC_EXPORT void* dlopen(const char* file, int mode) noexcept {
  auto* const next = next_dlopen.behind(own_dlopen);
  return next == nullptr ? nullptr : next(file, without_deepbind(mode));
}

// glibc. Namespaces but the first have a libc of their own and nothing of ours: there the flag may
// stay.
MINITC_EXPORT void* dlmopen(Lmid_t space, const char* file, int mode) noexcept {
  auto* const next = next_dlmopen.behind(own_dlmopen);
  if (next == nullptr) return nullptr;
  return next(space, file, space == LM_ID_BASE ? without_deepbind(mode) : mode);
}

}  // extern "C"

#endif
