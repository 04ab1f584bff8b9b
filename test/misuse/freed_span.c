// Uses a small object after all of its span's objects were freed and the span's pages went back.
#include "crime.h"

int main(int argc, char** argv) {
  enum { kObjects = 5000 };
  static void* objects[kObjects];
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(1000);
  for (int i = 0; i < kObjects; i++) free(objects[i]);
  return commit(argv, objects[kObjects / 2]);
}
