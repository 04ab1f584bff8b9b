// A preload that wraps dlopen and dlmopen, and remembers how it was called.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

static int mode_seen;
static void* caller_seen;
static int calls;

int wrapper_mode(void) { return mode_seen; }
void* wrapper_caller(void) { return caller_seen; }
int wrapper_calls(void) { return calls; }

void* dlopen(const char* file, int mode) {
  static void* (*real)(const char*, int);
  if (real == NULL) real = (void* (*)(const char*, int))dlsym(RTLD_NEXT, "dlopen");
  mode_seen = mode;
  caller_seen = __builtin_return_address(0);
  calls++;
  return real(file, mode);
}

void* dlmopen(Lmid_t space, const char* file, int mode) {
  static void* (*real)(Lmid_t, const char*, int);
  if (real == NULL) real = (void* (*)(Lmid_t, const char*, int))dlsym(RTLD_NEXT, "dlmopen");
  mode_seen = mode;
  caller_seen = __builtin_return_address(0);
  calls++;
  return real(space, file, mode);
}
