// A preload that wraps dlsym, as screen recorders and GPU schedulers do. $WRAP_DLSYM says how:
//   next     RTLD_NEXT means what is behind this library, not behind the caller
//   null     dlopen and dlmopen are not found
//   reenter  it opens a library itself before it looks
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int calls;

int wrapped_dlsym_calls(void) { return calls; }

void* dlsym(void* handle, const char* name) {
  void* (*real)(void*, const char*) =
      (void* (*)(void*, const char*))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
  const char* how = getenv("WRAP_DLSYM");
  if (strcmp(name, "dlopen") == 0 || strcmp(name, "dlmopen") == 0) {
    calls++;
    if (strcmp(how, "null") == 0) name = "surely_not_a_symbol_of_any_library";
    if (strcmp(how, "reenter") == 0) {
      dlopen("libm.so.6", RTLD_LAZY);
      dlmopen(LM_ID_BASE, "libm.so.6", RTLD_LAZY);
    }
  }
  void* volatile found = real(handle, name);  // volatile: no tail call
  return found;
}
