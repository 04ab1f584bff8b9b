// Allocates much, in several threads, between two marks that a trace of its system calls shows.
#include "check.h"

static pthread_barrier_t gate;

static void mark(const char* text) {
  // Nobody has descriptor -1: the call fails, and is seen.
  CHECK(write(-1, text, strlen(text)) == -1);
}

static void* work(void* unused) {
  void* objects[500];
  pthread_barrier_wait(&gate);
  pthread_barrier_wait(&gate);
  for (int round = 0; round < 5; round++) {
    churn(20);
    for (size_t i = 0; i < 500; i++) objects[i] = calloc(1, i * i + 1);
    for (size_t i = 0; i < 500; i++) objects[i] = realloc(objects[i], i * 300 + 50);
    for (size_t i = 0; i < 500; i++) free(objects[i]);
    char* large = malloc(1 << 20);
    for (size_t size = 2 << 20; size <= 64 << 20; size *= 2) {
      large = realloc(large, size);
      CHECK(large != NULL);
      memset(large, 1, 2 << 20);
    }
    free(large);
    free(memalign(1 << 20, 3 << 20));
    void* (*volatile refused)(size_t) = malloc;
    CHECK(refused(SIZE_MAX / 2) == NULL && errno == ENOMEM);
    malloc_trim(0);
    (void)mallinfo2();
  }
  pthread_barrier_wait(&gate);
  pthread_barrier_wait(&gate);
  return unused;
}

int main(void) {
  enum { kThreads = 3 };
  pthread_t threads[kThreads];
  pthread_barrier_init(&gate, NULL, kThreads + 1);
  free(malloc(1));
  for (int i = 0; i < kThreads; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
  // The threads' own birth, which makes calls too, is over when they are here.
  pthread_barrier_wait(&gate);
  mark("begin");
  pthread_barrier_wait(&gate);
  churn(100);
  pthread_barrier_wait(&gate);
  mark("end");
  pthread_barrier_wait(&gate);
  for (int i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  return 0;
}
