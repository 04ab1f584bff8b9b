// Frees a string that a plugin (argv[2]), opened with RTLD_DEEPBIND, took from libc's malloc.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  typedef char* make_string_function(void);
  void* plugin = dlopen(argv[2], RTLD_NOW | RTLD_DEEPBIND);
  if (plugin == NULL) return 2;
  make_string_function* make_string = (make_string_function*)dlsym(plugin, "make_string");
  return commit(argv, make_string());
}
