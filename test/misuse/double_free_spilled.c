// Frees a small object (argv[2] bytes) twice, then so many others that the thread cache has to pass
// both on.
#include "crime.h"

enum { kObjects = 100000 };
static void* objects[kObjects];

int main(int argc, char** argv) {
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(strtoull(argv[2], NULL, 0));
  void* victim = objects[kObjects / 2];
  announce(victim);
  call(argv[1], victim);
  call(argv[1], victim);
  for (int i = 0; i < kObjects; i += 2) {
    if (objects[i] != victim) free(objects[i]);
  }
  return survived();
}
