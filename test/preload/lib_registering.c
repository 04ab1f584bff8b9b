// A library whose constructor waits for a thread that registers fork handlers, as libraries do when
// they start. Whoever opens it holds the loader's lock meanwhile.
#include <pthread.h>
#include <unistd.h>

static void do_nothing(void) {}

static void* register_handlers(void* unused) {
  if (pthread_atfork(do_nothing, do_nothing, do_nothing) != 0) _exit(3);
  return unused;
}

__attribute__((constructor)) static void construct(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, register_handlers, NULL) != 0) _exit(3);
  pthread_join(thread, NULL);
}
