// Hands over a pointer argv[3] bytes into a live small object of argv[2] bytes.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  char* neighbour = malloc(strtoull(argv[2], NULL, 0));
  char* object = malloc(strtoull(argv[2], NULL, 0));
  char* inside = object + strtoull(argv[3], NULL, 0);
  if (neighbour == NULL) return 2;
  announce_interior(inside, object);
  call(argv[1], inside);
  return survived();
}
