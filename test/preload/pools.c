// Region pools as C programs use them. The program may run without the library: all that it uses of
// it is weak.
#include "check.h"

#include "../../preload/minitc.h"

#pragma weak minitc_pool_create
#pragma weak minitc_pool_destroy
#pragma weak minitc_pool_reset
#pragma weak minitc_pool_alloc
#pragma weak minitc_pool_calloc
#pragma weak minitc_pool_memalign
#pragma weak minitc_pool_strdup
#pragma weak minitc_pool_free_large
#pragma weak minitc_pool_cleanup_add
#pragma weak minitc_pool_stats

static minitc_pool_stats_t stats_of(minitc_pool_t* pool) {
  minitc_pool_stats_t stats;
  minitc_pool_stats(pool, &stats, sizeof stats);
  return stats;
}

// A request of a server that runs with and without libminitc.
static char* join(minitc_pool_t* pool, const char* a, const char* b) {
  size_t bytes = strlen(a) + strlen(b) + 1;
  char* text = (char*)(pool != NULL ? minitc_pool_take(pool, bytes) : malloc(bytes));
  CHECK(text != NULL);
  return strcat(strcpy(text, a), b);
}

static void with_and_without(void) {
  minitc_pool_t* pool = minitc_pool_create != NULL ? minitc_pool_create(0) : NULL;
  char* text = join(pool, pool != NULL ? "pool" : "malloc", "ed");
  puts(text);
  if (pool != NULL) {
    minitc_pool_destroy(pool);
  } else {
    free(text);
  }
}

// The called function and the one that is compiled into the program share the room.
static void blocks_keep_their_bytes(void) {
  minitc_pool_t* pool = minitc_pool_create(5000);
  for (int round = 0; round < 5; round++) {
    enum { kBlocks = 3000 };
    static unsigned char* blocks[kBlocks];
    static size_t sizes[kBlocks];
    for (int i = 0; i < kBlocks; i++) {
      size_t size = sizes[i] = (size_t)i * 7919 % (i % 50 == 0 ? 100000 : 600);
      void* block = i % 4 == 0   ? minitc_pool_alloc(pool, size)
                    : i % 4 == 1 ? minitc_pool_take(pool, size)
                    : i % 4 == 2 ? minitc_pool_calloc(pool, size, 1)
                                 : minitc_pool_memalign(pool, size, 64);
      CHECK(block != NULL && (uintptr_t)block % (i % 4 == 3 ? 64 : 16) == 0);
      CHECK(i % 4 != 2 || is_zero(block, size));
      fill(block, size, (unsigned)i);
      blocks[i] = (unsigned char*)block;
    }
    for (int i = 0; i < kBlocks; i++) {
      CHECK(is_filled(blocks[i], sizes[i], (unsigned)i));
      CHECK(minitc_pool_free_large(pool, blocks[i]) == (sizes[i] > MINITC_POOL_SMALL));
    }
    minitc_pool_reset(pool);
  }
  minitc_pool_destroy(pool);
}

// The fast path, at each size: neighbours touch, and at the end of a window and of a chunk too.
static void every_small_size(void) {
  minitc_pool_t* pool = minitc_pool_create(32768);
  for (int inlined = 0; inlined < 2; inlined++) {
    unsigned char* last_end = NULL;
    int gaps = 0;
    for (size_t size = 0; size <= MINITC_POOL_SMALL; size++) {
      unsigned char* block =
          (unsigned char*)(inlined ? minitc_pool_take(pool, size) : minitc_pool_alloc(pool, size));
      CHECK(block != NULL && (uintptr_t)block % 16 == 0);
      gaps += block != last_end;
      last_end = block + (size == 0 ? 16 : (size + 15) / 16 * 16);
      fill(block, size, 7);
    }
    // 8 MiB in chunks of 64 KiB.
    CHECK(gaps <= 150);
    CHECK(stats_of(pool).large_count == 0);
    minitc_pool_reset(pool);
  }
  minitc_pool_destroy(pool);
}

static void sizes_out_of_bounds(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  static const size_t sizes[] = {SIZE_MAX,       SIZE_MAX - 1, SIZE_MAX - 15,
                                 SIZE_MAX - 16,  SIZE_MAX / 2, (size_t)PTRDIFF_MAX + 1,
                                 (size_t)1 << 50};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t size = sizes[i];
    errno = 0;
    CHECK(minitc_pool_alloc(pool, size) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(minitc_pool_take(pool, size) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(minitc_pool_calloc(pool, size, 1) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(minitc_pool_memalign(pool, size, 64) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(minitc_pool_create(size) == NULL && errno == ENOMEM);
  }
  errno = 0;
  volatile size_t many = SIZE_MAX / 8;  // the compiler would see the overflow
  CHECK(minitc_pool_calloc(pool, many, 16) == NULL && errno == ENOMEM);
  errno = 0;
  many = (size_t)1 << 32;
  CHECK(minitc_pool_calloc(pool, many, many) == NULL && errno == ENOMEM);
  static const size_t alignments[] = {0, 3, 24, 48, 4097, SIZE_MAX};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
    errno = 0;
    CHECK(minitc_pool_memalign(pool, 10, alignments[i]) == NULL && errno == EINVAL);
  }
  errno = 0;
  CHECK(minitc_pool_memalign(pool, 10, (size_t)1 << 63) == NULL && errno == ENOMEM);
  // What succeeds leaves errno alone, and 0 bytes are a block of their own.
  errno = 777;
  void* one = minitc_pool_alloc(pool, 0);
  void* two = minitc_pool_take(pool, 0);
  void* three = minitc_pool_calloc(pool, 0, 7);
  void* four = minitc_pool_memalign(pool, 0, 4096);
  CHECK(one != NULL && two != NULL && three != NULL && four != NULL);
  CHECK(one != two && two != three && three != four && (uintptr_t)four % 4096 == 0);
  CHECK(minitc_pool_alloc(pool, 100000) != NULL);
  minitc_pool_reset(pool);
  minitc_pool_destroy(pool);
  CHECK(errno == 777);
}

static void nothing(void* argument) { (void)argument; }

static void null_pool(void) {
  errno = 0;
  CHECK(minitc_pool_alloc(NULL, 10) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_take(NULL, 10) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_calloc(NULL, 10, 10) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_memalign(NULL, 10, 64) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_memalign(NULL, 10, 8) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_strdup(NULL, "text") == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(minitc_pool_cleanup_add(NULL, nothing, NULL) == -1 && errno == ENOMEM);
  errno = 777;
  CHECK(minitc_pool_free_large(NULL, &errno) == 0);
  minitc_pool_reset(NULL);
  minitc_pool_destroy(NULL);
  CHECK(stats_of(NULL).chunks == 0 && stats_of(NULL).chunk_bytes == 0 && errno == 777);
}

static void strings(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  static char text[10000];
  for (size_t length = 0; length < sizeof text - 1; length += 1 + length / 20) {
    memset(text, 'x', length);
    text[length] = 0;
    char* copy = minitc_pool_strdup(pool, text);
    CHECK(copy != NULL && copy != text && strcmp(copy, text) == 0);
    CHECK(minitc_pool_free_large(pool, copy) == (length >= MINITC_POOL_SMALL));
  }
  minitc_pool_destroy(pool);
}

static void free_large_early(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  char* small = (char*)minitc_pool_alloc(pool, MINITC_POOL_SMALL);
  char* large = (char*)minitc_pool_alloc(pool, MINITC_POOL_SMALL + 1);
  char* heaps = (char*)malloc(10000);
  errno = 777;
  CHECK(minitc_pool_free_large(pool, small) == 0 && minitc_pool_free_large(pool, heaps) == 0);
  CHECK(minitc_pool_free_large(pool, large + 1) == 0 && minitc_pool_free_large(pool, NULL) == 0);
  CHECK(minitc_pool_free_large(pool, large) == 1 && minitc_pool_free_large(pool, large) == 0);
  CHECK(errno == 777);
  free(heaps);
  // 64 GiB in all.
  size_t used = stats_of(pool).used_bytes;
  for (int i = 0; i < 4096; i++) {
    char* block = (char*)minitc_pool_alloc(pool, 16 << 20);
    CHECK(block != NULL);
    *block = 1;
    CHECK(minitc_pool_free_large(pool, block) == 1);
  }
  CHECK(stats_of(pool).used_bytes <= used + 1000 && stats_of(pool).large_count == 0);
  minitc_pool_destroy(pool);
}

static int order[4];
static int ran;

static void note(void* argument) { order[ran++] = *(int*)argument; }

static void cleanups(void) {
  static int numbers[] = {1, 2, 3};
  minitc_pool_t* pool = minitc_pool_create(0);
  for (int end = 0; end < 2; end++) {
    ran = 0;
    for (int i = 0; i < 3; i++) CHECK(minitc_pool_cleanup_add(pool, note, &numbers[i]) == 0);
    end ? minitc_pool_destroy(pool) : minitc_pool_reset(pool);
    CHECK(ran == 3 && order[0] == 3 && order[1] == 2 && order[2] == 1);
  }
}

// A program that was compiled when the struct was shorter, and one for which it is longer.
static void stats_of_other_lengths(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  struct {
    minitc_pool_stats_t now;
    size_t later;
  } stats;
  memset(&stats, 0xff, sizeof stats);
  minitc_pool_stats(pool, &stats.now, sizeof(size_t));
  CHECK(stats.now.chunks == 1 && stats.now.chunk_bytes == SIZE_MAX);
  minitc_pool_stats(pool, &stats.now, sizeof stats);
  CHECK(stats.now.chunk_bytes == 1024 && stats.later == 0);
  minitc_pool_destroy(pool);
}

static void no_address_space(void) {
  size_t live = mallinfo2().uordblks;
  limit_address_space((size_t)128 << 20);
  minitc_pool_t* pool = minitc_pool_create(0);
  for (int round = 0; round < 3; round++) {
    static const size_t sizes[] = {100, 4000, 20000, 1000000};
    for (int i = 0; i < 4; i++) {
      size_t count = 0;
      for (void* block; (block = minitc_pool_alloc(pool, sizes[i])) != NULL; count++) {
        fill(block, sizes[i] < 100 ? sizes[i] : 100, 1);
      }
      CHECK(errno == ENOMEM && (i != 0 || count * sizes[i] > 60 << 20));
      if (i != 3) continue;
      CHECK(minitc_pool_calloc(pool, 1, 100) == NULL ||
            minitc_pool_calloc(pool, 5000, 100) == NULL);
    }
    minitc_pool_reset(pool);
    CHECK(stats_of(pool).large_count == 0 && stats_of(pool).chunk_bytes <= 64 << 10);
  }
  minitc_pool_destroy(pool);
  CHECK(mallinfo2().uordblks <= live + 4096);
}

static void memory_comes_back(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  long before = resident_kib();
  for (int i = 0; i < 400000; i++) memset(minitc_pool_alloc(pool, 500), 1, 500);
  for (int i = 0; i < 1000; i++) memset(minitc_pool_alloc(pool, 50000), 1, 50000);
  CHECK(resident_kib() > before + 200 * 1024);
  minitc_pool_reset(pool);
  CHECK(resident_kib() < before + 48 * 1024);
  minitc_pool_destroy(pool);
}

static void child_goes_on(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  char* text = minitc_pool_strdup(pool, "before");
  pid_t child = fork_checked();
  for (int i = 0; i < 1000; i++) minitc_pool_alloc(pool, 1000);
  void* large = minitc_pool_alloc(pool, 100000);
  CHECK(strcmp(text, "before") == 0 && minitc_pool_free_large(pool, large) == 1);
  minitc_pool_reset(pool);
  minitc_pool_destroy(pool);
  if (child == 0) _exit(0);
  CHECK(child_succeeded(child));
}

static void* serve(void* passed) {
  minitc_pool_t* pool = minitc_pool_create(4096);
  for (int i = 0; i < 20000; i++) {
    for (size_t k = 1; k < 40; k++) memset(minitc_pool_take(pool, k * 5), (int)k, k * 5);
    memset(minitc_pool_alloc(pool, 5000), 1, 5000);
    minitc_pool_reset(pool);
  }
  minitc_pool_destroy(pool);
  // A pool that another thread made.
  minitc_pool_destroy((minitc_pool_t*)passed);
  return NULL;
}

static void pool_per_thread(void) {
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) {
    minitc_pool_t* pool = minitc_pool_create(0);
    minitc_pool_alloc(pool, 100000);
    CHECK(pthread_create(&threads[i], NULL, serve, pool) == 0);
  }
  for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void reports(void) {
  minitc_pool_t* pool = minitc_pool_create(4096);
  minitc_pool_t* other = minitc_pool_create(4096);
  minitc_pool_alloc(pool, 10000);
  malloc_stats();
  malloc_info(0, stdout);
  minitc_pool_destroy(pool);
  minitc_pool_destroy(other);
  malloc_stats();
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"with_and_without", with_and_without},
      {"blocks_keep_their_bytes", blocks_keep_their_bytes},
      {"every_small_size", every_small_size},
      {"sizes_out_of_bounds", sizes_out_of_bounds},
      {"null_pool", null_pool},
      {"strings", strings},
      {"free_large_early", free_large_early},
      {"cleanups", cleanups},
      {"stats_of_other_lengths", stats_of_other_lengths},
      {"no_address_space", no_address_space},
      {"memory_comes_back", memory_comes_back},
      {"child_goes_on", child_goes_on},
      {"pool_per_thread", pool_per_thread},
      {"reports", reports},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
