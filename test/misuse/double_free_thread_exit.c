// A thread frees a small object twice and ends: its cache, which it has when it allocated before
// (argv[1] = cache), is flushed and checked.
#include "crime.h"

#include <pthread.h>

static int has_cache;

static void* free_twice(void* object) {
  if (has_cache) free(malloc(200));
  free(object);
  free(object);
  return NULL;
}

int main(int argc, char** argv) {
  enum { kObjects = 1000 };
  static void* objects[kObjects];
  has_cache = argc > 1 && strcmp(argv[1], "cache") == 0;
  pthread_t thread;
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(200);
  announce(objects[kObjects / 2]);
  if (pthread_create(&thread, NULL, free_twice, objects[kObjects / 2]) != 0) return 2;
  pthread_join(thread, NULL);
  return survived();
}
