// LDFLAGS: -Wl,--enable-new-dtags,-rpath,'$ORIGIN'
// A plugin that opens others: by its own RUNPATH, from its own folder, into its own namespace.
#define _GNU_SOURCE
#include <dlfcn.h>

// volatile: no tail call, which would make this plugin's caller the one that opens.
void* open_for_plugin(const char* file, int mode) {
  void* volatile handle = dlopen(file, mode);
  return handle;
}

void* open_in_space_for_plugin(Lmid_t space, const char* file, int mode) {
  void* volatile handle = dlmopen(space, file, mode);
  return handle;
}
