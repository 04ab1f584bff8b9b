// Bounds that the user sets, and what time does to free memory. Each case needs the variables that
// test_bounds.py gives it.
#include "check.h"

#include <time.h>

#include "../../preload/minitc.h"

enum { kKiB = 1 << 10, kMiB = 1 << 20, kPage = 4096 };

// The linker need not know them: the library is preloaded.
#pragma weak minitc_stats_json

static void* (*volatile hidden_malloc)(size_t) = malloc;

static void* touched(size_t bytes) {
  char* object = hidden_malloc(bytes);
  for (size_t offset = 0; object != NULL && offset < bytes; offset += kPage) object[offset] = 1;
  return object;
}

// Frees a list whose objects hold the address of the next.
static void free_list(void** object) {
  while (object != NULL) {
    void** next = *object;
    free(object);
    object = next;
  }
}

static void** list_of(size_t bytes, size_t piece) {
  void** list = NULL;
  for (size_t done = 0; done < bytes; done += piece) {
    void** object = touched(piece);
    CHECK(object != NULL);
    *object = list;
    list = object;
  }
  return list;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// MINITC_HARD_LIMIT=64M. Of each size as many as there is room for, then a null pointer, and what
// is freed serves the next.
static void hard_limit(void) {
  static const size_t sizes[] = {32, 1000, 20000, 300000, 5000000};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    void** list = NULL;
    size_t live = 0;
    errno = 0;
    for (void** object; (object = touched(sizes[i])) != NULL; live += sizes[i]) {
      *object = list;
      list = object;
    }
    CHECK(errno == ENOMEM);
    CHECK(live > 48u * kMiB && live < 64u * kMiB);
    CHECK(resident_kib() < 64 * kKiB + 6 * kKiB);
    errno = 0;
    CHECK(realloc(list, 64 * kMiB) == NULL && errno == ENOMEM);
    CHECK(calloc(64, kMiB) == NULL);
    void** next = *list;
    free(list);
    list = touched(sizes[i]);
    CHECK(list != NULL);
    *list = next;
    free_list(list);
  }
}

// MINITC_SOFT_LIMIT=64M. Below it as always; what is live may pass it, what is free may not.
static void soft_limit(void) {
  void** low = list_of(40 * kMiB, 1000);
  void** high = list_of(100 * kMiB, 50000);
  CHECK(resident_kib() > 140 * kKiB);
  free_list(high);
  CHECK(resident_kib() < 64 * kKiB + 8 * kKiB);
  for (int i = 0; i < 20; i++) free_list(list_of(40 * kMiB, 20000));
  CHECK(resident_kib() < 64 * kKiB + 8 * kKiB);
  free_list(low);
}

// What stays of a peak is gone after some seconds of a light load.
static void peak_is_forgotten(void) {
  long before = resident_kib();
  for (int i = 0; i < 3; i++) free_list(list_of(200 * kMiB, 60000));
  CHECK(resident_kib() > before + 24 * kKiB);
  double start = seconds();
  while (resident_kib() > before + 4 * kKiB && seconds() < start + 40) {
    for (int i = 0; i < 40; i++) free_list(list_of(100 * kKiB, 100));
    usleep(20000);
  }
  if (resident_kib() > before + 4 * kKiB) fprintf(stderr, "%ld KiB", resident_kib() - before);
  CHECK(resident_kib() <= before + 4 * kKiB);
}

// One object in eight stays, and with it each span; the memory of the others is gone after some
// seconds of a light load, and at once by malloc_trim().
static void sparse_spans(void) {
  enum { kCount = 8000, kBytes = 12000, kStay = 8 };
  static unsigned char* objects[kCount];
  long before = resident_kib();
  for (int way = 0; way < 2; way++) {
    for (int i = 0; i < kCount; i++) objects[i] = memset(hidden_malloc(kBytes), i % 251, kBytes);
    CHECK(resident_kib() > before + 88 * kKiB);
    for (int i = 0; i < kCount; i++) {
      if (i % kStay != 0) free(objects[i]);
    }
    if (way == 0) CHECK(malloc_trim(0) == 1);
    double start = seconds();
    while (resident_kib() > before + 28 * kKiB && way == 1 && seconds() < start + 40) {
      for (int i = 0; i < 40; i++) free_list(list_of(100 * kKiB, 100));
      usleep(20000);
    }
    if (resident_kib() > before + 28 * kKiB) fprintf(stderr, "%ld KiB", resident_kib() - before);
    CHECK(resident_kib() <= before + 28 * kKiB);
    for (int i = 0; i < kCount; i += kStay) {
      for (int k = 0; k < kBytes; k++) CHECK(objects[i][k] == i % 251);
      free(objects[i]);
    }
  }
}

// Some kernels, of virtual machines, give memory to a page that is only read.
static int reading_takes_memory(void) {
  const size_t bytes = 8 * kMiB;
  long before = resident_kib();
  volatile unsigned char* fresh =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(fresh != MAP_FAILED);
  for (size_t i = 0; i < bytes; i += 4096) CHECK(fresh[i] == 0);
  long after = resident_kib();
  munmap((void*)fresh, bytes);
  return after >= before + 4 * kKiB;
}

// calloc of blocks of which the program writes little: what had no memory before gets none.
static void sparse_calloc(void) {
  if (reading_takes_memory()) skip("this kernel gives memory to pages that are only read");
  enum { kStride = 64 * kKiB, kRounds = 8 };
  const size_t bytes = 24 * kMiB;
  long before = resident_kib();
  for (int round = 0; round < kRounds; round++) {
    unsigned char* object = calloc(1, bytes - (size_t)round);
    for (size_t i = 0; i < bytes - kStride; i += kStride) {
      size_t last = i + 4095 - 500 * (size_t)round;
      CHECK(object[i] == 0 && object[last] == 0);
      object[last]++;
    }
    free(object);
  }
  CHECK(resident_kib() < before + 4 * kKiB);
}

// The same of smaller blocks that are new, whatever their size, also when all has gone back once.
static void sparse_new_blocks(void) {
  enum { kLeast = 16 * kKiB, kStep = 4 * kKiB, kMost = 256 * kKiB, kCount = 24 };
  static unsigned char* blocks[kMost / kStep * kCount];
  for (int round = 0; round < 2; round++) {
    long before = resident_kib();
    int n = 0;
    for (size_t bytes = kLeast; bytes <= kMost; bytes += kStep) {
      for (int i = 0; i < kCount; i++) {
        blocks[n] = calloc(1, bytes);
        CHECK(blocks[n][bytes / 2] == 0);
        blocks[n++][bytes / 2]++;
      }
    }
    // Of 194 MiB a page of each, and what belongs to them.
    CHECK(resident_kib() < before + n * 4L + 4 * kKiB);
    while (n > 0) free(blocks[--n]);
    malloc_trim(0);
  }
}

// MINITC_RELEASE=free. Memory is offered, and the kernel may leave it; calloc stays right.
static void offered_memory(void) {
  for (int round = 0; round < 3; round++) {
    size_t bytes = 60 * kMiB;
    free(memset(hidden_malloc(bytes), 0xee, bytes));
    unsigned char* object = calloc(1, bytes);
    for (size_t i = 0; i < bytes; i++) CHECK(object[i] == 0);
    // A sparse one costs what is touched.
    free(object);
    object = calloc(1, 1024u * kMiB);
    long before = resident_kib();
    for (size_t i = 0; i < 1024u * kMiB; i += 64 * kMiB) object[i]++;
    CHECK(resident_kib() < before + kKiB);
    free(object);
  }
}

static pthread_barrier_t hoarded;
static pthread_barrier_t ended;

// Sixteen threads that hoard, and one that could cache 888 KiB (256 objects or 512 KiB of a size),
// share 1 MiB (or 32 MiB, which is enough for all).
enum { kSizes = 4 };
static const size_t hoarded_sizes[kSizes] = {64, 256, 1024, 4096};
static const size_t wanted_sizes[kSizes] = {96, 384, 1536, 6144};

static void work(const size_t* sizes) {
  for (int i = 0; i < kSizes; i++) free_list(list_of(300 * sizes[i], sizes[i]));
}

static void* hoard(void* unused) {
  for (int round = 0; round < 8; round++) work(hoarded_sizes);
  pthread_barrier_wait(&hoarded);
  pthread_barrier_wait(&ended);
  work(hoarded_sizes);
  return unused;
}

// In bytes, of objects of the hoarders' sizes.
static size_t hoards(void) {
  static char json[MINITC_STATS_JSON_BYTES];
  CHECK(minitc_stats_json(json, sizeof json) < sizeof json);
  size_t sum = 0;
  for (int i = 0; i < kSizes; i++) {
    char row[40];
    snprintf(row, sizeof row, "{\"bytes\":%zu,", hoarded_sizes[i]);
    const char* cached = strstr(json, row);
    cached = cached == NULL ? NULL : strstr(cached, "\"thread_cached\":");
    CHECK(cached != NULL);
    sum += strtoul(strchr(cached, ':') + 1, NULL, 10) * hoarded_sizes[i];
  }
  return sum;
}

// Threads that sleep on full caches lose them to one that is short of room for its own, or to time,
// and go on well.
static void idle_threads(void) {
  enum { kThreads = 16 };
  pthread_t threads[kThreads];
  CHECK(pthread_barrier_init(&hoarded, NULL, kThreads + 1) == 0);
  CHECK(pthread_barrier_init(&ended, NULL, kThreads + 1) == 0);
  for (int i = 0; i < kThreads; i++) CHECK(pthread_create(&threads[i], NULL, hoard, NULL) == 0);
  pthread_barrier_wait(&hoarded);
  size_t before = hoards();
  CHECK(before > kMiB / 4);
  double start = seconds();
  size_t left = before;
  for (; left > before / 2 && seconds() < start + 30; left = hoards()) work(wanted_sizes);
  if (left > before / 2) fprintf(stderr, "%zu of %zu bytes are left\n", left, before);
  CHECK(left <= before / 2);
  pthread_barrier_wait(&ended);
  for (int i = 0; i < kThreads; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"hard_limit", hard_limit},
      {"soft_limit", soft_limit},
      {"peak_is_forgotten", peak_is_forgotten},
      {"sparse_spans", sparse_spans},
      {"sparse_calloc", sparse_calloc},
      {"sparse_new_blocks", sparse_new_blocks},
      {"offered_memory", offered_memory},
      {"idle_threads", idle_threads},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
