// Objects that one thread allocates and another frees, for long enough to see whether they pile up.
#include "check.h"

#include <time.h>

enum { kQueue = 100000 };

// A bounded queue: what is in it is all that is live.
typedef struct Queue {
  pthread_mutex_t lock;
  pthread_cond_t not_empty;
  pthread_cond_t not_full;
  void* objects[kQueue];
  size_t first;
  size_t count;
  size_t limit;
} Queue;

static Queue queue = {.lock = PTHREAD_MUTEX_INITIALIZER,
                      .not_empty = PTHREAD_COND_INITIALIZER,
                      .not_full = PTHREAD_COND_INITIALIZER};
static const size_t* sizes;
static size_t size_count;
static volatile int stop;

enum { kBatch = 50 };

static void put(void** objects) {
  pthread_mutex_lock(&queue.lock);
  while (queue.count + kBatch > queue.limit) pthread_cond_wait(&queue.not_full, &queue.lock);
  for (int i = 0; i < kBatch; i++) {
    queue.objects[(queue.first + queue.count++) % kQueue] = objects[i];
  }
  pthread_cond_signal(&queue.not_empty);
  pthread_mutex_unlock(&queue.lock);
}

static void get(void** objects) {
  pthread_mutex_lock(&queue.lock);
  while (queue.count < kBatch) pthread_cond_wait(&queue.not_empty, &queue.lock);
  for (int i = 0; i < kBatch; i++) {
    objects[i] = queue.objects[queue.first];
    queue.first = (queue.first + 1) % kQueue;
  }
  queue.count -= kBatch;
  pthread_cond_signal(&queue.not_full);
  pthread_mutex_unlock(&queue.lock);
}

static void* produce(void* unused) {
  for (size_t n = 0; !stop; n++) {
    void* objects[kBatch];
    for (int i = 0; i < kBatch; i++) {
      size_t size = sizes[(n + (size_t)i) % size_count];
      objects[i] = memset(malloc(size), 1, size);
    }
    put(objects);
  }
  return unused;
}

static void* consume(void* unused) {
  for (;;) {
    void* objects[kBatch];
    get(objects);
    for (int i = 0; i < kBatch; i++) free(objects[i]);
  }
  return unused;
}

static void start(void* (*work)(void*), int threads) {
  pthread_t thread;
  for (int i = 0; i < threads; i++) CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
}

// The largest of some looks at RSS.
static long most_resident_kib(int looks) {
  long most = 0;
  for (int i = 0; i < looks; i++) {
    usleep(20000);
    long now = resident_kib();
    if (now > most) most = now;
  }
  return most;
}

// Four allocate, four free. After a second the peak of RSS does not rise any more.
static void many_to_many(void) {
  static const size_t mixed[] = {256, 512, 4096};
  sizes = mixed;
  size_count = 3;
  queue.limit = 5000;
  start(produce, 4);
  start(consume, 4);
  most_resident_kib(50);
  long early = most_resident_kib(50);
  long late = most_resident_kib(50);
  if (late > early + 4096) fprintf(stderr, "RSS rose from %ld to %ld KiB\n", early, late);
  CHECK(late <= early + 4096);
  _exit(0);
}

// 16 allocate, one only frees: it has no use for what it caches.
static void many_to_one(void) {
  static const size_t one[] = {592};
  const long live_kib = kQueue * 592l / 1024;
  sizes = one;
  size_count = 1;
  queue.limit = kQueue;
  long before = resident_kib();
  start(produce, 16);
  start(consume, 1);
  long most = most_resident_kib(75) - before;
  if (most > live_kib * 13 / 10 + 2048) fprintf(stderr, "%ld KiB for %ld\n", most, live_kib);
  CHECK(most <= live_kib * 13 / 10 + 2048);
  _exit(0);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"many_to_many", many_to_many},
      {"many_to_one", many_to_one},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
