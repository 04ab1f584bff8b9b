// Threads that misuse their memory, each in a size class of its own, beside honest work. argv[1] is
// "at_once" (run it with MINITC_CHECK_FREE=1) or "late".
#include "crime.h"

#include <pthread.h>

enum { kThreads = 8, kObjects = 2000, kVictims = 1000, kStep = 20 };

static int at_once;

static void check_objects(char** objects, size_t size, char fill) {
  for (int i = 0; i < kObjects; i++) {
    for (size_t k = 0; k < size; k++) {
      if (objects[i][k] != fill) wrong("an object has changed");
    }
  }
}

static void* work(void* number) {
  static const size_t sizes[kThreads] = {24, 56, 72, 88, 120, 250, 300, 500};
  static long in_data[8];
  const size_t size = sizes[(uintptr_t)number];
  const char fill = (char)((uintptr_t)number + 1);
  char* objects[kObjects];
  for (int i = 0; i < kObjects; i++) objects[i] = memset(malloc(size), fill, size);
  for (int round = 0; round < 20; round++) {
    // The victims' neighbours stay, so that their spans do, too.
    for (int i = 0; i < kVictims; i += kStep) {
      free(objects[i]);
      free(objects[i]);
      free(objects[i + 1] + 8);
    }
    if (at_once) {
      free(in_data);
      if (realloc(in_data, 100) != NULL || malloc_usable_size(in_data) != 0) wrong("result");
    } else {
      malloc_trim(0);
    }
    for (int i = 0; i < kVictims; i += kStep) objects[i] = memset(malloc(size), fill, size);
    check_objects(objects, size, fill);
  }
  churn((unsigned)(uintptr_t)number);
  check_objects(objects, size, fill);
  return NULL;
}

int main(int argc, char** argv) {
  pthread_t threads[kThreads];
  (void)argc;
  at_once = strcmp(argv[1], "at_once") == 0;
  for (uintptr_t i = 0; i < kThreads; i++) {
    if (pthread_create(&threads[i], NULL, work, (void*)i) != 0) return 2;
  }
  for (int i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  return survived();
}
