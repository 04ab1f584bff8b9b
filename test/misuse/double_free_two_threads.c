// Two threads, one after the other, free the same small object; the second one's exit tells, or its
// call when it has no cache because it never allocated (argv[1] = none).
#include "crime.h"

#include <pthread.h>

static int has_cache;

static void* free_once(void* object) {
  if (has_cache) free(malloc(200));
  free(object);
  return NULL;
}

int main(int argc, char** argv) {
  enum { kObjects = 1000 };
  static void* objects[kObjects];
  has_cache = argc > 1 && strcmp(argv[1], "cache") == 0;
  // The neighbours stay, so that the span does not go back after the first of the two.
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(200);
  void* victim = objects[kObjects / 2];
  announce(victim);
  for (int i = 0; i < 2; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_once, victim) != 0) return 2;
    pthread_join(thread, NULL);
  }
  return survived();
}
