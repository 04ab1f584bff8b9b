// A process whose address space is limited: every call that can't be served answers NULL and
// ENOMEM, nothing is lost, and what comes after works.
#include "check.h"

#include <sys/sysinfo.h>

enum { kMiB = 1 << 20 };

static void limit_growth(size_t bytes) {
  char text[64] = "";
  int fd = open("/proc/self/statm", O_RDONLY);
  CHECK(read(fd, text, sizeof text - 1) > 0);
  close(fd);
  size_t now = strtoull(text, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
  limit_address_space(now + bytes);
}

// Objects of one size, linked through themselves, until there are no more.
static size_t take_all(void** list, size_t size) {
  size_t count = 0;
  for (;;) {
    errno = 0;
    void** object = malloc(size);
    if (object == NULL) break;
    fill(object + 1, size > 72 ? 64 : size - 8, (unsigned)count);
    *object = *list;
    *list = object;
    count++;
  }
  CHECK(errno == ENOMEM);
  return count;
}

static void give_back(void** list, size_t size, size_t count) {
  for (; count > 0; count--) {
    void** object = *list;
    CHECK(object != NULL && is_filled(object + 1, size > 72 ? 64 : size - 8, (unsigned)count - 1));
    *list = *object;
    free(object);
  }
}

static void exhaust(size_t size) {
  void* list = NULL;
  churn(10);
  limit_growth(64 * kMiB);
  size_t first = take_all(&list, size);
  CHECK(first * size > 30 * kMiB);
  // Every other way to ask fails alike, and what exists stays as it is.
  void* (*volatile hidden_calloc)(size_t, size_t) = calloc;
  errno = 0;
  CHECK(hidden_calloc(1, 80 * kMiB) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(memalign(2 * kMiB, 80 * kMiB) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(realloc(list, 80 * kMiB) == NULL && errno == ENOMEM);
  void* out = NULL;
  CHECK(posix_memalign(&out, 64, 80 * kMiB) == ENOMEM && out == NULL);
  give_back(&list, size, first);
  for (int round = 0; round < 3; round++) {
    size_t again = take_all(&list, size);
    CHECK(again >= first - first / 8);
    give_back(&list, size, again);
  }
  churn(10);
}

static void small_objects(void) { exhaust(64); }

static void middle_objects(void) { exhaust(5000); }

static void large_objects(void) { exhaust(kMiB); }

// What was given back in one size can be had in another.
static void another_size(void) {
  static const size_t sizes[] = {48, 300000, 1000, 100000, 16, 2 * kMiB, 8000};
  void* list = NULL;
  churn(10);
  limit_growth(64 * kMiB);
  for (int i = 0; i < 7; i++) {
    size_t count = take_all(&list, sizes[i]);
    if (count * sizes[i] <= 20 * kMiB) {
      fprintf(stderr, "only %zu objects of %zu bytes\n", count, sizes[i]);
    }
    CHECK(count * sizes[i] > 20 * kMiB);
    give_back(&list, sizes[i], count);
  }
}

static void* exhaust_in_thread(void* gate) {
  void* list = NULL;
  pthread_barrier_wait(gate);
  size_t count = take_all(&list, 500);
  give_back(&list, 500, count);
  return NULL;
}

static void threads_at_the_limit(void) {
  enum { kThreads = 4 };
  pthread_t threads[kThreads];
  pthread_barrier_t gate;
  pthread_barrier_init(&gate, NULL, kThreads + 1);
  for (int i = 0; i < kThreads; i++) {
    CHECK(pthread_create(&threads[i], NULL, exhaust_in_thread, &gate) == 0);
  }
  limit_growth(64 * kMiB);
  pthread_barrier_wait(&gate);
  for (int i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  churn(10);
}

// A block that shrinks is at least left as it is, for programs that do not expect a failure.
static void shrinking_succeeds(void) {
  unsigned char* big = malloc(20 * kMiB);
  fill(big, 50000, 3);
  void* list[13] = {NULL};
  limit_growth(0);
  for (int i = 0; i < 13; i++) take_all(&list[i], (size_t)200000 >> i);
  unsigned char* less = realloc(big, 50000);
  CHECK(less != NULL && is_filled(less, 50000, 3));
  free(less);
}

static volatile int stop_trimming;

static void* trim_again_and_again(void* unused) {
  while (!stop_trimming) malloc_trim(0);
  return unused;
}

// Memory that another thread is just giving back to the system is not gone.
static void while_another_trims(void) {
  pthread_t trimmer;
  free(malloc(30 * kMiB));
  CHECK(pthread_create(&trimmer, NULL, trim_again_and_again, NULL) == 0);
  limit_growth(16 * kMiB);
  for (int i = 0; i < 500; i++) {
    char* volatile object = malloc(24 * kMiB);
    CHECK(object != NULL);
    memset(object, 1, 24 * kMiB);
    free(object);
  }
  stop_trimming = 1;
  pthread_join(trimmer, NULL);
}

// The limit is there before the first allocation, and lets next to nothing through.
static void from_the_start(void) {
  limit_growth(kMiB / 4);
  void* volatile object = malloc(100);
  void* volatile large = malloc(kMiB);
  CHECK(large == NULL && errno == ENOMEM);
  if (object != NULL) memset(object, 1, 100);
  free(object);
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &limit) == 0) churn(10);
}

static void few_descriptors(void) {
  struct rlimit limit = {3, 3};
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  churn(1000);
}

// More than the machine has is refused at once, not when it is written to, unless the kernel is
// told to refuse nothing.
static void more_than_there_is(void) {
  char setting = '?';
  int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY);
  CHECK(fd >= 0 && read(fd, &setting, 1) == 1);
  close(fd);
  if (setting == '1') exit(77);
  struct sysinfo machine;
  CHECK(sysinfo(&machine) == 0);
  const size_t all = (machine.totalram + machine.totalswap) * machine.mem_unit;
  char* block = malloc(5000);
  fill(block, 5000, 7);
  for (size_t bytes = 2 * all; bytes < PTRDIFF_MAX / 2; bytes *= 2) {
    errno = 0;
    CHECK(malloc(bytes) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(bytes / 8, 8) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(block, bytes) == NULL && errno == ENOMEM);
    void* out = NULL;
    CHECK(posix_memalign(&out, 4096, bytes) == ENOMEM && out == NULL);
  }
  CHECK(is_filled(block, 5000, 7));
  free(block);
  char* sparse = malloc(all / 2);
  CHECK(sparse != NULL);
  sparse[all / 2 - 1] = 1;
  free(sparse);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"small_objects", small_objects},
      {"middle_objects", middle_objects},
      {"large_objects", large_objects},
      {"another_size", another_size},
      {"threads_at_the_limit", threads_at_the_limit},
      {"shrinking_succeeds", shrinking_succeeds},
      {"while_another_trims", while_another_trims},
      {"from_the_start", from_the_start},
      {"few_descriptors", few_descriptors},
      {"more_than_there_is", more_than_there_is},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
