// Hands over a pointer argv[3] bytes (negative: from the end) into a live object of argv[2] bytes
// that has pages of its own.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  char* object = malloc(strtoull(argv[2], NULL, 0));
  long offset = strtol(argv[3], NULL, 0);
  if (offset < 0) offset += (long)malloc_usable_size(object);
  announce_interior(object + offset, object);
  call(argv[1], object + offset);
  return survived();
}
