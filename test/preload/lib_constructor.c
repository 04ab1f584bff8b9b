// A library that allocates in its constructor, from a thread there too, and frees in its
// destructor.
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { kObjects = 300 };
static char* by_constructor[kObjects];
static char* by_thread[kObjects];

static void* allocate_all(void* objects) {
  char** list = objects;
  for (int i = 0; i < kObjects; i++) {
    list[i] = malloc((size_t)i * 50 + 1);
    list[i][0] = (char)i;
  }
  return NULL;
}

__attribute__((constructor(101))) static void construct(void) {
  pthread_t thread;
  allocate_all(by_constructor);
  if (pthread_create(&thread, NULL, allocate_all, by_thread) != 0) _exit(3);
  pthread_join(thread, NULL);
}

__attribute__((destructor(101))) static void destroy(void) {
  for (int i = 0; i < kObjects; i++) {
    if (by_constructor[i][0] != (char)i || by_thread[i][0] != (char)i) _exit(4);
    free(by_constructor[i]);
    free(by_thread[i]);
    free(calloc(1, (size_t)i + 1));
  }
  static const char text[] = "library destroyed\n";
  if (write(STDOUT_FILENO, text, sizeof text - 1) < 0) _exit(5);
}

int constructed(void) {
  return by_constructor[kObjects - 1] != NULL && by_thread[kObjects - 1] != NULL;
}
