// A preload whose constructor opens the plugin $EARLY_PLUGIN with RTLD_DEEPBIND, before main and,
// behind libminitc in the list, before libminitc's own constructor.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

static void* handle;

__attribute__((constructor)) static void open_early(void) {
  handle = dlopen(getenv("EARLY_PLUGIN"), RTLD_NOW | RTLD_DEEPBIND);
}

void* early_handle(void) { return handle; }
