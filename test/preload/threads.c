// Threads from birth to death: what is allocated and freed after the thread cache has gone, and
// that nothing stays behind of many threads.
#include "check.h"

enum { kWarmUp = 300 };
static const long kSlackKib = 1024;

static void* (*volatile hidden_malloc)(size_t) = malloc;
static pthread_key_t early_key;
static pthread_key_t late_key;

// 1000 pairs in each of the 4 rounds that pthreads gives to destructors that set their value again.
static void destroy_value(pthread_key_t key, void* value) {
  int* rounds = value;
  for (int i = 0; i < 1000; i++) {
    char* object = hidden_malloc((size_t)(i % 700) + 1);
    object[i % 700] = 1;
    free(object);
  }
  void* held[200];
  for (int i = 0; i < 200; i++) held[i] = hidden_malloc(100);
  for (int i = 0; i < 200; i++) free(held[i]);
  if (++*rounds < 4) {
    CHECK(pthread_setspecific(key, rounds) == 0);
  } else {
    free(rounds);
  }
}

static void destroy_early(void* value) { destroy_value(early_key, value); }

static void destroy_late(void* value) { destroy_value(late_key, value); }

// Before the first allocation, so that this key's number is lower than any that the library takes.
static void create_early_key(int argc, char** argv, char** environment) {
  (void)argc;
  (void)argv;
  (void)environment;
  if (pthread_key_create(&early_key, destroy_early) != 0) _exit(3);
}

__attribute__((section(".preinit_array"), used)) static void (*entry)(int, char**,
                                                                      char**) = create_early_key;

// Runs `start` in `count` threads, one after the other; RSS must be flat after the first ones.
static void run_many(int count, void* (*start)(void*)) {
  long before = 0;
  for (int i = 0; i < count; i++) {
    pthread_t thread;
    if (i == kWarmUp) before = resident_kib();
    CHECK(pthread_create(&thread, NULL, start, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  long grown = resident_kib() - before;
  if (grown > kSlackKib) fprintf(stderr, "grown by %ld KiB\n", grown);
  CHECK(grown <= kSlackKib);
}

static void* use_early_key(void* unused) {
  churn(3);
  CHECK(pthread_setspecific(early_key, calloc(1, sizeof(int))) == 0);
  return unused;
}

static void* use_late_key(void* unused) {
  churn(3);
  CHECK(pthread_setspecific(late_key, calloc(1, sizeof(int))) == 0);
  return unused;
}

static void* use_both_keys(void* unused) {
  use_early_key(NULL);
  return use_late_key(unused);
}

static void early_key_destructor(void) { run_many(1500, use_early_key); }

static void late_key_destructor(void) {
  free(hidden_malloc(10));
  CHECK(pthread_key_create(&late_key, destroy_late) == 0);
  run_many(1500, use_late_key);
}

static void both_key_destructors(void) {
  free(hidden_malloc(10));
  CHECK(pthread_key_create(&late_key, destroy_late) == 0);
  run_many(1500, use_both_keys);
}

// A thread whose first and only calls are many frees, in the last round of destructors: the
// library's own has run for the last time, and nobody would notice that a cache made now is left
// behind.
enum { kLastFrees = 400 };
static void* for_last_round[kLastFrees];

static void free_in_last_round(void* value) {
  if ((uintptr_t)value < 4) {
    CHECK(pthread_setspecific(late_key, (char*)value + 1) == 0);
    return;
  }
  for (int i = 0; i < kLastFrees; i++) free(for_last_round[i]);
}

static void* use_last_round(void* unused) {
  CHECK(pthread_setspecific(late_key, (void*)1) == 0);
  return unused;
}

static void many_frees_in_last_round(void) {
  long before = 0;
  CHECK(pthread_key_create(&late_key, free_in_last_round) == 0);
  for (int i = 0; i < 2000; i++) {
    pthread_t thread;
    if (i == kWarmUp) before = resident_kib();
    for (int k = 0; k < kLastFrees; k++) for_last_round[k] = memset(hidden_malloc(500), 1, 500);
    CHECK(pthread_create(&thread, NULL, use_last_round, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  long grown = resident_kib() - before;
  if (grown > kSlackKib) fprintf(stderr, "grown by %ld KiB\n", grown);
  CHECK(grown <= kSlackKib);
}

static void* only_strerror(void* unused) {
  CHECK(strcmp(strerror(987654), "Unknown error 987654") == 0);
  return unused;
}

static void strerror_in_fresh_threads(void) { run_many(5000, only_strerror); }

static void* do_nothing(void* unused) { return unused; }

static void threads_that_never_allocate(void) { run_many(5000, do_nothing); }

static void* allocate_a_little(void* unused) {
  void* objects[3];
  for (size_t i = 0; i < 3; i++) objects[i] = hidden_malloc(40 * i + 20);
  for (int i = 0; i < 3; i++) free(objects[i]);
  return unused;
}

// 10^5 threads over all: as many as a server sees that starts one per request.
static void hundred_thousand_threads(void) { run_many(100000, allocate_a_little); }

static void* allocate_of_all(void* unused) {
  churn(2);
  return unused;
}

static void threads_of_all_sizes(void) { run_many(3000, allocate_of_all); }

static void* free_it(void* object) {
  free(object);
  return NULL;
}

static void objects_freed_by_dying_threads(void) {
  long before = 0;
  for (int i = 0; i < 5000; i++) {
    pthread_t thread;
    if (i == kWarmUp) before = resident_kib();
    void* object = hidden_malloc((size_t)(i % 9 + 1) * 1000);
    memset(object, 1, 1000);
    CHECK(pthread_create(&thread, NULL, free_it, object) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  // main's own cache of the nine classes fills meanwhile; a page lost per thread would be 18 MiB.
  CHECK(resident_kib() - before <= 4 * kSlackKib);
}

// A queue of one batch between a thread that only allocates and one that only frees.
enum { kBatch = 20000, kBatches = 100, kObjectBytes = 592 };
static void* batch[kBatch];
static pthread_barrier_t turn;

static void* free_batches(void* unused) {
  for (int round = 0; round < kBatches; round++) {
    pthread_barrier_wait(&turn);
    for (int i = 0; i < kBatch; i++) free(batch[i]);
    pthread_barrier_wait(&turn);
  }
  return unused;
}

static void free_only_thread(void) {
  pthread_t thread;
  long start = resident_kib();
  pthread_barrier_init(&turn, NULL, 2);
  CHECK(pthread_create(&thread, NULL, free_batches, NULL) == 0);
  for (int round = 0; round < kBatches; round++) {
    for (int i = 0; i < kBatch; i++) {
      batch[i] = hidden_malloc(kObjectBytes);
      memset(batch[i], round, kObjectBytes);
    }
    // Live is 11.8 MB at most; what the freeing thread hoards would add up over the rounds.
    CHECK(resident_kib() - start < kBatch / 1024 * kObjectBytes * 13 / 10 + 4096);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
  }
  pthread_join(thread, NULL);
}

static void* end_deep_inside(void* unused) {
  (void)unused;
  churn(2);
  free(hidden_malloc(30));
  pthread_exit(NULL);
}

static void threads_that_call_exit(void) { run_many(2000, end_deep_inside); }

static void* wait_for_cancel(void* unused) {
  churn(2);
  void* object = hidden_malloc(5000);
  pthread_cleanup_push(free, object);
  for (;;) pause();
  pthread_cleanup_pop(1);
  return unused;
}

static void cancelled_threads(void) {
  for (int i = 0; i < 500; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_cancel, NULL) == 0);
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, NULL) == 0);
  }
  churn(5);
}

static volatile int detached_done;

static void* count_detached(void* unused) {
  churn(1);
  __atomic_add_fetch(&detached_done, 1, __ATOMIC_SEQ_CST);
  return unused;
}

static void detached_threads(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (int i = 0; i < 1000; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, count_detached, NULL) == 0);
    if (i % 8 == 7) {
      while (detached_done <= i) usleep(50);
    }
  }
  churn(5);
}

// All threads meet their first allocation at once.
static void* first_allocation(void* unused) {
  pthread_barrier_wait(&turn);
  churn(3);
  return unused;
}

static void first_allocations_at_once(void) {
  enum { kThreads = 256 };
  pthread_t threads[kThreads];
  pthread_barrier_init(&turn, NULL, kThreads);
  for (int i = 0; i < kThreads; i++) {
    CHECK(pthread_create(&threads[i], NULL, first_allocation, NULL) == 0);
  }
  for (int i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
}

static void* churn_for_ever(void* unused) {
  for (;;) churn(1);
  return unused;
}

static void exit_while_others_allocate(void) {
  for (int i = 0; i < 6; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, churn_for_ever, NULL) == 0);
  }
  usleep(30000);
  exit(0);
}

static void* outlive_main(void* main_thread) {
  pthread_join(*(pthread_t*)main_thread, NULL);
  churn(200);
  static const char text[] = "outlived\n";
  CHECK(write(STDOUT_FILENO, text, sizeof text - 1) > 0);
  return NULL;
}

static void main_exits_first(void) {
  static pthread_t main_thread;
  pthread_t thread;
  main_thread = pthread_self();
  churn(5);
  CHECK(pthread_create(&thread, NULL, outlive_main, &main_thread) == 0);
  pthread_exit(NULL);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"early_key_destructor", early_key_destructor},
      {"late_key_destructor", late_key_destructor},
      {"both_key_destructors", both_key_destructors},
      {"many_frees_in_last_round", many_frees_in_last_round},
      {"strerror_in_fresh_threads", strerror_in_fresh_threads},
      {"threads_that_never_allocate", threads_that_never_allocate},
      {"hundred_thousand_threads", hundred_thousand_threads},
      {"threads_of_all_sizes", threads_of_all_sizes},
      {"objects_freed_by_dying_threads", objects_freed_by_dying_threads},
      {"free_only_thread", free_only_thread},
      {"threads_that_call_exit", threads_that_call_exit},
      {"cancelled_threads", cancelled_threads},
      {"detached_threads", detached_threads},
      {"first_allocations_at_once", first_allocations_at_once},
      {"exit_while_others_allocate", exit_while_others_allocate},
      {"main_exits_first", main_exits_first},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
