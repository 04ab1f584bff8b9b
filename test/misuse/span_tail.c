// Frees the waste behind the last object of a small span: it looks like an object, but is none.
#include "crime.h"

enum { kObjects = 5000, kPage = 8192 };
static char* objects[kObjects];

static int by_address(const void* a, const void* b) {
  char* x = *(char* const*)a;
  char* y = *(char* const*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  (void)argc;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(144);
  qsort(objects, kObjects, sizeof objects[0], by_address);
  // A page boundary that no object lies across and that the next object does not begin at its old
  // stride from: the span ends there, and what is left before it is waste.
  for (int i = kObjects / 2; i + 1 < kObjects; i++) {
    char* end = objects[i] + malloc_usable_size(objects[i]);
    char* boundary = (char*)(((uintptr_t)end + kPage - 1) / kPage * kPage);
    if (objects[i + 1] == boundary && boundary - end >= 16 && boundary - end < 144) {
      return commit(argv, end);
    }
  }
  say("no tail found\n");
  return 2;
}
