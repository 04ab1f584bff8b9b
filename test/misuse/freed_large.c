// Uses a large object (argv[2] bytes) after it was freed.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  void* object = malloc(strtoull(argv[2], NULL, 0));
  void* neighbour = malloc(strtoull(argv[2], NULL, 0));
  free(object);
  announce(object);
  call(argv[1], object);
  free(neighbour);
  return survived();
}
