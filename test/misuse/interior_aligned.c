// Hands over a pointer argv[4] bytes into a live block that memalign(argv[2], argv[3]) gave.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  char* object = memalign(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
  char* inside = object + strtoull(argv[4], NULL, 0);
  announce_interior(inside, object);
  call(argv[1], inside);
  return survived();
}
