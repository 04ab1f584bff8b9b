// A library with a lock that it takes around fork, as libraries do that have threads. It registers
// for that in its constructor, before anybody has allocated.
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

__attribute__((constructor(101))) static void construct(void) {
  if (pthread_atfork(lock, unlock, unlock) != 0) _exit(3);
}

void allocate_under_lock(void) {
  lock();
  for (size_t bytes = 1; bytes < 1000000; bytes *= 3) {
    void* volatile object = malloc(bytes);
    free(object);
  }
  unlock();
}
