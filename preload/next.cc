#include "preload/next.h"

#include <dlfcn.h>

namespace minitc {

// Another library's dlsym may call the function that is looked for, and may mean by RTLD_NEXT what
// is behind itself, which may be ours: until the right one is known, or if it can't be, libc's is
// used.
void* Next::find(const void* own) {
#ifdef __GLIBC__
  known_.store(dlvsym(RTLD_NEXT, symbol_, version_), std::memory_order_relaxed);
#endif
  void* const found = dlsym(RTLD_NEXT, symbol_);
  if (found != nullptr && found != own) known_.store(found, std::memory_order_relaxed);
  return known_.load(std::memory_order_relaxed);
}

}  // namespace minitc
