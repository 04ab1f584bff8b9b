// A library whose fork handlers allocate and free, in all tiers and sizes. It registers them when
// the program says so: before the allocator's own handlers, or after them.
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { kObjects = 2000 };
static void* held[kObjects];
static volatile int calls;

static void allocate(void) {
  for (int i = 0; i < kObjects; i++) {
    held[i] = malloc(i % 100 == 0 ? 300000 : (size_t)i + 1);
    if (held[i] == NULL) _exit(9);
  }
}

static void release(void) {
  for (int i = 0; i < kObjects; i++) {
    free(held[i]);
    held[i] = NULL;
  }
}

// prepare allocates what parent and child free; each also does a whole round.
static void prepare(void) {
  calls++;
  allocate();
  release();
  allocate();
}

static void after(void) {
  calls++;
  release();
  allocate();
  release();
}

int register_fork_handlers(void) { return pthread_atfork(prepare, after, after); }

int fork_handler_calls(void) { return calls; }
