// Uses a freed large object whose pages have become the middle of a longer free run.
#include "crime.h"

int main(int argc, char** argv) {
  enum { kObjects = 9 };
  void* objects[kObjects];
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(512 << 10);
  for (int i = 0; i < kObjects; i += 2) free(objects[i]);
  for (int i = 1; i < kObjects; i += 2) free(objects[i]);
  return commit(argv, objects[atoi(argv[2])]);
}
