// argv[1] threads fill their caches with every class and stay, idle; then the report is printed.
#include "check.h"

static pthread_barrier_t gate;
static int most_objects;

static void* fill_cache(void* unused) {
  enum { kObjects = 300 };
  void* objects[kObjects];
  for (size_t size = 16; size <= 65536; size *= 2) {
    int count = size < 4096 ? most_objects : 20;
    for (int round = 0; round < 5; round++) {
      for (int i = 0; i < count; i++) objects[i] = malloc(size);
      for (int i = 0; i < count; i++) free(objects[i]);
    }
  }
  pthread_barrier_wait(&gate);
  pthread_barrier_wait(&gate);
  return unused;
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  int threads = atoi(argv[1]);
  most_objects = threads <= 100 ? 300 : 30;
  pthread_t thread;
  pthread_barrier_init(&gate, NULL, (unsigned)threads + 1);
  for (int i = 0; i < threads; i++) {
    int error = pthread_create(&thread, NULL, fill_cache, NULL);
    if (error == EAGAIN) skip("so many threads are not allowed here");
    CHECK(error == 0);
  }
  pthread_barrier_wait(&gate);
  malloc_stats();
  _exit(0);
}
