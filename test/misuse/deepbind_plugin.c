// Opens a plugin (argv[2]) with RTLD_DEEPBIND and frees a string that it allocated, or, if argv[3]
// is "static", an object of this program.
#include "crime.h"

static long in_data[8];

int main(int argc, char** argv) {
  typedef char* make_string_function(void);
  void* plugin = dlopen(argv[2], RTLD_NOW | RTLD_DEEPBIND);
  if (plugin == NULL) return 2;
  make_string_function* make_string = (make_string_function*)dlsym(plugin, "make_string");
  return commit(argv, argc > 3 ? (char*)in_data : make_string());
}
