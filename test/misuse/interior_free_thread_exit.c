// A thread frees an interior pointer of a small object and ends: its cache, which it has when it
// allocated before (argv[1] = cache), is flushed and checked.
#include "crime.h"

#include <pthread.h>

static int has_cache;

static void* free_inside(void* inside) {
  if (has_cache) free(malloc(200));
  free(inside);
  return NULL;
}

int main(int argc, char** argv) {
  char* object = malloc(200);
  pthread_t thread;
  has_cache = argc > 1 && strcmp(argv[1], "cache") == 0;
  announce_interior(object + 64, object);
  if (pthread_create(&thread, NULL, free_inside, object + 64) != 0) return 2;
  pthread_join(thread, NULL);
  return survived();
}
