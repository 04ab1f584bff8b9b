// A plugin for dlopen with RTLD_DEEPBIND: its malloc is then libc's, whatever is preloaded.
#include <stdlib.h>
#include <string.h>

char* make_string(void) {
  static const char text[] = "allocated by the plugin";
  char* copy = malloc(sizeof text);
  if (copy != NULL) memcpy(copy, text, sizeof text);
  return copy;
}
