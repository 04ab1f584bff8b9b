// A library whose constructor takes the environment away before other libraries start: environ is
// null from then on.
#include <stdlib.h>

__attribute__((constructor)) static void clear(void) {
  clearenv();
  free(malloc(100));
}
