// A library with a lock that it takes around fork, as libraries do that have threads. It registers
// for that in its constructor, before anybody has allocated. Its destructor, which runs after those
// of preloaded libraries, may fork.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

__attribute__((constructor(101))) static void construct(void) {
  if (pthread_atfork(lock, unlock, unlock) != 0) _exit(3);
}

int forks_at_exit = 0;

__attribute__((destructor)) static void destruct(void) {
  for (int i = 0; i < forks_at_exit; i++) {
    pid_t child = fork();
    if (child == 0) {
      alarm(5);
      for (size_t bytes = 16; bytes < 200000; bytes += 397) {
        void* volatile object = malloc(bytes);
        free(object);
      }
      _exit(0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) _exit(4);
  }
  if (forks_at_exit != 0) _exit(0);
}

void allocate_under_lock(void) {
  lock();
  for (size_t bytes = 1; bytes < 1000000; bytes *= 3) {
    void* volatile object = malloc(bytes);
    free(object);
  }
  unlock();
}
