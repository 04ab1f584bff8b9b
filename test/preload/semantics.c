// What the allocation functions promise: alignment, usable bytes, zeroes, contents after free,
// errno. Most of it holds for glibc too; the test knows which cases are the library's own.
#include "check.h"

enum { kPage = 8 << 10, kSmallLimit = 128 << 10 };
static const int kUntouched = 777;

static void* (*volatile hidden_malloc)(size_t) = malloc;

static unsigned long random_state = 12345;

static size_t random_below(size_t bound) {
  random_state = random_state * 6364136223846793005ul + 1442695040888963407ul;
  return (random_state >> 33) % bound;
}

static void alignment_of_every_size(void) {
  enum { kLast = 8192 };
  static char* objects[kLast + 1];
  for (size_t size = 1; size <= kLast; size++) {
    objects[size] = malloc(size);
    CHECK(objects[size] != NULL);
    CHECK((uintptr_t)objects[size] % (size <= 8 ? 8 : 16) == 0);
    fill(objects[size], size, (unsigned)size);
  }
  for (size_t size = 1; size <= kLast; size++) {
    CHECK(is_filled(objects[size], size, (unsigned)size));
    free(objects[size]);
  }
  for (size_t size = kLast; size < 4 << 20; size += size / 5) {
    void* object = malloc(size);
    CHECK((uintptr_t)object % 16 == 0);
    free(object);
  }
}

static void size_classes(void) {
  static const size_t pairs[][2] = {{1, 8},
                                    {8, 8},
                                    {9, 16},
                                    {16, 16},
                                    {17, 32},
                                    {24, 32},
                                    {32, 32},
                                    {40, 48},
                                    {48, 48},
                                    {64, 64},
                                    {80, 80},
                                    {96, 96},
                                    {112, 112},
                                    {128, 128},
                                    {129, 144},
                                    {144, 144},
                                    {145, 160},
                                    {256, 256},
                                    {257, 288},
                                    {1024, 1024},
                                    {1025, 1152},
                                    {kSmallLimit - 1, kSmallLimit},
                                    {kSmallLimit, kSmallLimit},
                                    {kSmallLimit + 1, kSmallLimit + kPage},
                                    {1 << 20, (1 << 20) + kPage},
                                    {(1 << 20) + kPage / 2, (1 << 20) + kPage},
                                    {(1 << 20) + kPage, (1 << 20) + 2 * kPage}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    void* object = malloc(pairs[i][0]);
    // Of a large one the pages, which may begin before it.
    size_t before = pairs[i][0] > kSmallLimit ? (uintptr_t)object % kPage : 0;
    CHECK(before + malloc_usable_size(object) == pairs[i][1]);
    free(object);
  }
  for (size_t size = 128; size <= kSmallLimit; size += size / 64) {
    void* object = malloc(size);
    CHECK(malloc_usable_size(object) - size <= size / 8);
    free(object);
  }
}

static void usable_size_is_constant(void) {
  enum { kObjects = 2000 };
  static void* objects[kObjects];
  static size_t usable[kObjects];
  for (int i = 0; i < kObjects; i++) {
    objects[i] = malloc(random_below(i % 50 == 0 ? 1000000 : 5000));
    usable[i] = malloc_usable_size(objects[i]);
    memset(objects[i], 0xFF, usable[i]);
  }
  for (int i = 0; i < kObjects; i += 2) free(objects[i]);
  churn(100);
  malloc_trim(0);
  for (int i = 1; i < kObjects; i += 2) {
    CHECK(malloc_usable_size(objects[i]) == usable[i]);
    free(objects[i]);
  }
}

// Each way to get an object, in each class: all that is granted may be written, to the last byte,
// and is no other object's.
static void* allocate_somehow(unsigned how, size_t size) {
  switch (how) {
    case 0:
      return malloc(size);
    case 1:
      return calloc(1, size);
    case 2:
      return realloc(malloc(size / 2), size);
    case 3:
      return realloc(malloc(size * 2), size);
    case 4:
      return memalign(64, size);
    default:
      return memalign(4096, size);
  }
}

static void usable_bytes_are_writable(void) {
  enum { kObjects = 12 };
  for (size_t size = first_class(); size <= 2 * kSmallLimit; size = next_step(size)) {
    void* objects[kObjects];
    size_t usable[kObjects];
    for (unsigned i = 0; i < kObjects; i++) {
      objects[i] = allocate_somehow(i % 6, size);
      CHECK(objects[i] != NULL);
      usable[i] = malloc_usable_size(objects[i]);
      CHECK(usable[i] >= size);
      fill(objects[i], usable[i], i);
    }
    for (unsigned i = 0; i < kObjects; i++) {
      CHECK(malloc_usable_size(objects[i]) == usable[i]);
      CHECK(is_filled(objects[i], usable[i], i));
    }
    for (unsigned i = 0; i < kObjects; i++) free(objects[i]);
  }
}

static void unique_objects_of_no_size(void) {
  enum { kObjects = 20000 };
  static char* objects[kObjects];
  for (int i = 0; i < kObjects; i++) {
    switch (i % 4) {
      case 0:
        objects[i] = hidden_malloc(0);
        break;
      case 1:
        objects[i] = calloc(0, 8);
        break;
      case 2:
        objects[i] = realloc(NULL, 0);
        break;
      default:
        objects[i] = memalign(64, 0);
        break;
    }
    CHECK(objects[i] != NULL);
    // A unique address: what is stored in one object's identity must not show up in another.
    if (malloc_usable_size(objects[i]) >= sizeof(int)) *(int*)(void*)objects[i] = i;
  }
  for (int i = 0; i < kObjects; i++) {
    if (malloc_usable_size(objects[i]) >= sizeof(int)) CHECK(*(int*)(void*)objects[i] == i);
    free(objects[i]);
  }
}

static void calloc_after_dirt(void) {
  enum { kObjects = 20 };
  for (size_t size = first_class(); size <= kSmallLimit; size = next_step(size)) {
    void* objects[2 * kObjects];
    for (int i = 0; i < kObjects; i++) {
      objects[i] = malloc(size);
      CHECK(objects[i] != NULL);
      memset(objects[i], 0xEE, size);
    }
    for (int i = 0; i < kObjects; i++) free(objects[i]);
    for (int i = 0; i < 2 * kObjects; i++) {
      objects[i] = i % 2 == 0 ? calloc(1, size) : calloc(size, 1);
      CHECK(objects[i] != NULL && is_zero(objects[i], size));
      memset(objects[i], 0xDD, size);
    }
    for (int i = 0; i < 2 * kObjects; i++) free(objects[i]);
  }
}

// Runs of pages are split, joined, given back and taken again; what is believed to be zero must be.
static void calloc_of_recycled_pages(void) {
  enum { kObjects = 48, kRounds = 2500 };
  static char* objects[kObjects];
  static size_t sizes[kObjects];
  for (int round = 0; round < kRounds; round++) {
    size_t i = random_below(kObjects);
    if (objects[i] != NULL) {
      memset(objects[i], 0xCC, sizes[i]);
      free(objects[i]);
    }
    sizes[i] = random_below(round % 3 == 0 ? 2 << 20 : round % 3 == 1 ? 300000 : 20000) + 1;
    objects[i] = calloc(1, sizes[i]);
    CHECK(objects[i] != NULL && is_zero(objects[i], sizes[i]));
    if (round % 200 == 199) malloc_trim(0);
    if (round % 500 == 499) {
      for (int k = 0; k < kObjects; k++) {
        if (objects[k] != NULL) memset(objects[k], 0xBB, sizes[k]);
        free(objects[k]);
        objects[k] = NULL;
      }
    }
  }
}

// An emulator may give back pages in a range that suits its own page size, and ignore the next that
// does not: what went well once is no promise.
static void calloc_after_returns(void) {
  enum { kObjects = 12, kBytes = 272 << 10 };  // as much as all that is returned here
  for (size_t size = 512 << 10; size <= 640 << 10; size += 8 << 10) {
    void* objects[kObjects];
    void* object = memalign(64 << 10, size);
    memset(object, 0xFF, size);
    free(object);
    malloc_trim(0);
    for (int i = 0; i < kObjects; i++) {
      objects[i] = calloc(1, kBytes);
      CHECK(is_zero(objects[i], kBytes));
    }
    for (int i = 0; i < kObjects; i++) free(objects[i]);
  }
}

static void calloc_after_realloc(void) {
  for (int i = 0; i < 60; i++) {
    size_t size = (size_t)(i % 6 + 1) * 400000;
    char* object = malloc(size);
    memset(object, 0xAA, size);
    object = realloc(object, size / 2);
    char* zero = calloc(1, size / 3);
    CHECK(is_zero(zero, size / 3));
    memset(zero, 0x99, size / 3);
    object = realloc(object, size * 2);
    memset(object, 0x88, size * 2);
    char* more = calloc(3, size / 3);
    CHECK(is_zero(more, size / 3 * 3));
    free(object);
    free(zero);
    free(more);
  }
}

// The object's neighbours stay, so that its pages do. volatile reads of freed memory are the point.
static void free_leaves_every_byte(void) {
  enum { kObjects = 40, kMiddle = kObjects / 2, kSeed = 9 };
  for (size_t size = first_class(); size <= kSmallLimit; size = next_step(size)) {
    void* objects[kObjects];
    for (int i = 0; i < kObjects; i++) {
      objects[i] = malloc(size);
      CHECK(objects[i] != NULL);
    }
    const char* volatile freed = objects[kMiddle];
    size_t usable = malloc_usable_size(objects[kMiddle]);
    fill(objects[kMiddle], usable, kSeed);
    free(objects[kMiddle]);
    CHECK(is_filled(freed, usable, kSeed));
    for (int i = 0; i < kObjects; i += 4) {
      if (i != kMiddle) free(objects[i]);
    }
    CHECK(is_filled(freed, usable, kSeed));
    for (int i = 0; i < kObjects; i++) {
      if (i % 4 != 0) free(objects[i]);
    }
  }
}

static void free_leaves_large_bytes(void) {
  for (size_t size = kSmallLimit + 1; size < 6 << 20; size += size / 2) {
    char* before = malloc(size);
    char* volatile object = malloc(size);
    char* after = malloc(size);
    fill(object, size, 4);
    free(object);
    CHECK(is_filled(object, size, 4));
    free(before);
    CHECK(is_filled(object, size, 4));
    free(after);
  }
}

static void check_free_keeps_errno(size_t size, int count) {
  void** objects = malloc((size_t)count * sizeof *objects);
  for (int i = 0; i < count; i++) {
    errno = kUntouched;
    objects[i] = i % 3 == 0 ? calloc(1, size) : i % 3 == 1 ? malloc(size) : memalign(64, size);
    CHECK(objects[i] != NULL && errno == kUntouched);
  }
  for (int i = 0; i < count; i++) {
    errno = kUntouched;
    free(objects[i]);
    CHECK(errno == kUntouched);
  }
  free(objects);
}

static void errno_of_every_class(void) {
  for (size_t size = first_class(); size <= kSmallLimit; size = next_step(size)) {
    check_free_keeps_errno(size, size < 10000 ? 300 : 20);
  }
}

static void errno_of_returned_memory(void) {
  check_free_keeps_errno(1 << 20, 300);
  check_free_keeps_errno(100 << 20, 3);
  check_free_keeps_errno(4000, 30000);
  errno = kUntouched;
  malloc_trim(0);
  CHECK(errno == kUntouched);
}

static void* flush_at_exit(void* unused) {
  for (int i = 0; i < 1000; i++) free(hidden_malloc((size_t)i));
  errno = kUntouched;
  return unused;
}

// The start of the process left errno as it was, and so does a thread's first call, which makes its
// cache.
static int errno_at_start;

static void* allocate_first(void* unused) {
  errno = kUntouched;
  void* volatile object = hidden_malloc(100);
  CHECK(errno == kUntouched);
  free(object);
  CHECK(errno == kUntouched);
  return unused;
}

static void errno_of_first_calls(void) {
  pthread_t thread;
  CHECK(errno_at_start == 0);
  allocate_first(NULL);
  CHECK(pthread_create(&thread, NULL, allocate_first, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

static void errno_over_thread_exit(void) {
  pthread_t thread;
  errno = kUntouched;
  CHECK(pthread_create(&thread, NULL, flush_at_exit, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(errno == kUntouched);
}

typedef void by_size(void*, size_t);
typedef void by_two_sizes(void*, size_t, size_t);

static void* find(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  CHECK(found != NULL);
  return found;
}

// The size in a sized free is a hint that programs get wrong; the object must go where it belongs.
static void wrong_sizes(void) {
  by_size* sized[] = {(by_size*)find("free_sized"), (by_size*)find("_ZdlPvm"),
                      (by_size*)find("_ZdaPvm")};
  by_two_sizes* aligned[] = {(by_two_sizes*)find("free_aligned_sized"),
                             (by_two_sizes*)find("_ZdlPvmSt11align_val_t")};
  static const size_t sizes[] = {0, 8, 16, 100, 5000, 131072, 131073, 1000000, SIZE_MAX};
  enum { kSizes = sizeof sizes / sizeof sizes[0] };
  for (int i = 0; i < 100000; i++) {
    size_t size = sizes[i % (kSizes - 1)];
    size_t wrong = sizes[i / kSizes % kSizes];
    char* object = memalign(16, size);
    CHECK(object != NULL && malloc_usable_size(object) >= size);
    if (size > 0) object[0] = object[size - 1] = (char)i;
    errno = kUntouched;
    if (i % 5 < 3) {
      sized[i % 5](object, wrong);
    } else {
      // operator delete takes the size first, free_aligned_sized the alignment: wrong all the more.
      aligned[i % 5 - 3](object, 16, wrong);
    }
    CHECK(errno == kUntouched);
  }
  struct mallinfo2 info = mallinfo2();
  CHECK(info.uordblks + info.hblkhd < 8 << 20);
}

static void sized_free_after_realloc(void) {
  by_size* free_sized_function = (by_size*)find("free_sized");
  size_t before = mallinfo2().uordblks;
  for (size_t from = 1; from < 1 << 20; from += from / 4 + 1) {
    for (size_t to = from / 4 + 1; to < from * 4; to += to / 3 + 1) {
      char* object = realloc(hidden_malloc(from), to);
      CHECK(object != NULL);
      object[to - 1] = 1;
      free_sized_function(object, to);
    }
  }
  // Each went where it belongs, so that what is live can be counted.
  malloc_trim(0);
  CHECK(mallinfo2().uordblks <= before + 1000);
}

int main(int argc, char** argv) {
  errno_at_start = errno;
  static const TestCase cases[] = {
      {"alignment_of_every_size", alignment_of_every_size},
      {"size_classes", size_classes},
      {"usable_size_is_constant", usable_size_is_constant},
      {"usable_bytes_are_writable", usable_bytes_are_writable},
      {"unique_objects_of_no_size", unique_objects_of_no_size},
      {"calloc_after_dirt", calloc_after_dirt},
      {"calloc_of_recycled_pages", calloc_of_recycled_pages},
      {"calloc_after_returns", calloc_after_returns},
      {"calloc_after_realloc", calloc_after_realloc},
      {"free_leaves_every_byte", free_leaves_every_byte},
      {"free_leaves_large_bytes", free_leaves_large_bytes},
      {"errno_of_every_class", errno_of_every_class},
      {"errno_of_returned_memory", errno_of_returned_memory},
      {"errno_of_first_calls", errno_of_first_calls},
      {"errno_over_thread_exit", errno_over_thread_exit},
      {"wrong_sizes", wrong_sizes},
      {"sized_free_after_realloc", sized_free_after_realloc},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
