#include "preload/next.h"

#include <dlfcn.h>

namespace minitc {
namespace {

#ifdef __GLIBC__
void* of_version(const char* symbol, const char* version) {
  return dlvsym(RTLD_NEXT, symbol, version);
}
#else
void* of_version(const char* /*symbol*/, const char* /*version*/) { return nullptr; }
#endif

}  // namespace

// Another library's dlsym may call the function that is looked for, and may mean by RTLD_NEXT what
// is behind itself, which may be ours: until the right one is known, or if it can't be, libc's is
// used.
void* Next::search(const void* own) {
  known_.store(of_version(symbol_, version_), std::memory_order_relaxed);
  void* const found = dlsym(RTLD_NEXT, symbol_);
  if (found != nullptr && found != own) known_.store(found, std::memory_order_relaxed);
  return known_.load(std::memory_order_relaxed);
}

}  // namespace minitc
