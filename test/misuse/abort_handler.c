// Commits a crime under a SIGABRT handler that allocates, as crash reporters do: no lock may be
// held when the library gives up.
#include "crime.h"

#include <signal.h>

static void report(int number) {
  static const size_t sizes[] = {16, 208, 4000, 200000, 1 << 20};
  (void)number;
  for (int i = 0; i < 5000; i++) {
    void* volatile object = malloc(sizes[i % 5]);
    if (i % 8 == 0) free(object);
  }
  say("handler done\n");
  _exit(3);
}

int main(int argc, char** argv) {
  enum { kObjects = 200 };
  static void* objects[kObjects];
  long local[16];
  (void)argc;
  signal(SIGABRT, report);
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(200);
  free(objects[kObjects / 2]);
  if (strcmp(argv[2], "foreign") == 0) return commit(argv, local);
  if (strcmp(argv[2], "interior") == 0) return commit(argv, (char*)objects[0] + 8);
  return commit(argv, objects[kObjects / 2]);
}
