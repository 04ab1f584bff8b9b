// Uses a small object (argv[2] bytes) after it was freed, while its neighbours are alive.
#include "crime.h"

int main(int argc, char** argv) {
  enum { kObjects = 200 };
  static void* objects[kObjects];
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(strtoull(argv[2], NULL, 0));
  free(objects[kObjects / 2]);
  return commit(argv, objects[kObjects / 2]);
}
