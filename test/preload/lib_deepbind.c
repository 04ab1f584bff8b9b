// A plugin for dlopen with RTLD_DEEPBIND. Where the flag counts, its malloc is libc's, whatever is
// preloaded.
#include <stdlib.h>
#include <string.h>

void* plugin_malloc(void) { return (void*)malloc; }

void* plugin_allocate(size_t bytes) { return malloc(bytes); }
void* plugin_resize(void* object, size_t bytes) { return realloc(object, bytes); }
void plugin_release(void* object) { free(object); }

char* make_string(void) {
  static const char text[] = "allocated by the plugin";
  char* copy = malloc(sizeof text);
  if (copy != NULL) memcpy(copy, text, sizeof text);
  return copy;
}
