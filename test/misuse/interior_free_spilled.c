// Frees an interior pointer of a small object (argv[2] bytes), then so many good ones that the
// thread cache has to pass it on.
#include "crime.h"

enum { kObjects = 100000 };
static void* objects[kObjects];

int main(int argc, char** argv) {
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(strtoull(argv[2], NULL, 0));
  char* victim = objects[kObjects / 2];
  announce_interior(victim + 8, victim);
  call(argv[1], victim + 8);
  for (int i = 0; i < kObjects; i++) {
    if (objects[i] != victim) free(objects[i]);
  }
  return survived();
}
