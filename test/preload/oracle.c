// Prints tables of what the allocation functions answer to odd arguments. The test compares the
// output under the library with the output under glibc itself, so the expected values are nowhere
// written.
#include "check.h"

#include <stddef.h>

typedef unsigned char Byte;

// volatile: the compiler must not fold or reject what it knows to be too large.
static volatile const size_t kHuge[] = {SIZE_MAX,
                                        SIZE_MAX - 1,
                                        SIZE_MAX - 7,
                                        SIZE_MAX - 15,
                                        SIZE_MAX - 16,
                                        SIZE_MAX - 31,
                                        SIZE_MAX - 63,
                                        SIZE_MAX - 4094,
                                        SIZE_MAX - 4095,
                                        SIZE_MAX - 4096,
                                        SIZE_MAX - 8190,
                                        SIZE_MAX - 8191,
                                        SIZE_MAX - 8192,
                                        SIZE_MAX - 16383,
                                        SIZE_MAX - 65535,
                                        SIZE_MAX / 4 * 3,
                                        (size_t)PTRDIFF_MAX + 4096,
                                        (size_t)PTRDIFF_MAX + 2,
                                        (size_t)PTRDIFF_MAX + 1,
                                        PTRDIFF_MAX,
                                        PTRDIFF_MAX - 1,
                                        PTRDIFF_MAX - 4095,
                                        PTRDIFF_MAX - 8191,
                                        PTRDIFF_MAX / 2 + 1,
                                        (size_t)1 << 48,
                                        (size_t)1 << 47};
static volatile const size_t kAlignments[] = {0,
                                              1,
                                              2,
                                              3,
                                              4,
                                              5,
                                              7,
                                              8,
                                              9,
                                              12,
                                              15,
                                              16,
                                              17,
                                              24,
                                              32,
                                              33,
                                              48,
                                              64,
                                              96,
                                              100,
                                              127,
                                              128,
                                              129,
                                              256,
                                              1000,
                                              1024,
                                              2048,
                                              4095,
                                              4096,
                                              4097,
                                              8192,
                                              12288,
                                              16384,
                                              65536,
                                              100000,
                                              131072,
                                              262144,
                                              1 << 20,
                                              2 << 20,
                                              3 << 20,
                                              64 << 20,
                                              1 << 30,
                                              (size_t)1 << 48,
                                              (size_t)1 << 62,
                                              ((size_t)1 << 62) + 1,
                                              (size_t)1 << 63,
                                              ((size_t)1 << 63) + 1,
                                              SIZE_MAX - 1,
                                              SIZE_MAX};
static volatile const size_t kSizes[] = {
    0, 1, 7, 8, 9, 16, 24, 100, 1000, 4096, 5000, 8192, 100000, 131072, 131073, 300000, 1 << 20};
static volatile const size_t kHugeSizes[] = {PTRDIFF_MAX - 4096, PTRDIFF_MAX, SIZE_MAX / 2 + 1,
                                             SIZE_MAX - 65536, SIZE_MAX};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const int kUntouched = 777;

static size_t round_up_to_power_of_two(size_t n) {
  size_t power = 1;
  while (power < n && power != 0) power *= 2;
  return power;
}

// One row: whether there is an object, whether it is aligned and fully usable, what errno became.
static void row(const char* function, size_t a, size_t b, void* object, size_t alignment,
                size_t bytes) {
  int error = errno;
  printf("%s(%#zx, %#zx): ", function, a, b);
  if (object == NULL) {
    printf("NULL, errno %d\n", error);
    return;
  }
  Byte* byte = object;
  memset(byte, 0xAB, bytes);
  printf("object, %saligned, %susable, errno %d\n",
         (uintptr_t)object % alignment == 0 ? "" : "not ",
         malloc_usable_size(object) >= bytes ? "" : "not ", error);
  free(object);
}

static void zero_sizes(void) {
  void* out = NULL;
  void* (*volatile hidden_realloc)(void*, size_t) = realloc;
  errno = kUntouched;
  row("malloc", 0, 0, malloc(0), 8, 0);
  errno = kUntouched;
  row("calloc", 0, 10, calloc(0, 10), 8, 0);
  errno = kUntouched;
  row("calloc", 10, 0, calloc(10, 0), 8, 0);
  errno = kUntouched;
  row("calloc", 0, SIZE_MAX, calloc(0, kHuge[0]), 8, 0);
  errno = kUntouched;
  row("calloc", SIZE_MAX, 0, calloc(kHuge[0], 0), 8, 0);
  errno = kUntouched;
  row("realloc", 0, 0, hidden_realloc(NULL, 0), 8, 0);
  errno = kUntouched;
  row("reallocarray", 0, 16, reallocarray(NULL, 0, 16), 8, 0);
  errno = kUntouched;
  row("reallocarray", 16, 0, reallocarray(NULL, 16, 0), 8, 0);
  errno = kUntouched;
  row("aligned_alloc", 64, 0, aligned_alloc(64, 0), 64, 0);
  errno = kUntouched;
  row("memalign", 64, 0, memalign(64, 0), 64, 0);
  errno = kUntouched;
  row("valloc", 0, 0, valloc(0), 4096, 0);
  errno = kUntouched;
  row("pvalloc", 0, 0, pvalloc(0), 4096, 0);
  errno = kUntouched;
  printf("posix_memalign: %d\n", posix_memalign(&out, 64, 0));
  row("posix_memalign", 64, 0, out, 64, 0);
}

static void realloc_to_zero(void) {
  for (size_t i = 0; i < COUNT(kSizes); i++) {
    void* object = malloc(kSizes[i]);
    void* other = malloc(kSizes[i]);
    errno = kUntouched;
    void* result = realloc(object, kSizes[0]);
    printf("realloc(%zu -> 0): %s, errno %d\n", kSizes[i], result ? "object" : "NULL", errno);
    errno = kUntouched;
    result = reallocarray(other, kSizes[0], 8);
    printf("reallocarray(%zu -> 0): %s, errno %d\n", kSizes[i], result ? "object" : "NULL", errno);
  }
}

static void posix_memalign_table(void) {
  for (size_t a = 0; a < COUNT(kAlignments); a++) {
    size_t alignment = kAlignments[a];
    for (size_t s = 0; s < COUNT(kSizes) + COUNT(kHugeSizes); s++) {
      size_t bytes = s < COUNT(kSizes) ? kSizes[s] : kHugeSizes[s - COUNT(kSizes)];
      void* out = (void*)&kUntouched;
      int error = posix_memalign(&out, alignment, bytes);
      printf("posix_memalign(%#zx, %#zx): %d", alignment, bytes, error);
      if (error != 0) {
        printf(", result %s\n", out == &kUntouched ? "untouched" : "changed");
      } else {
        printf(", %saligned\n", (uintptr_t)out % alignment == 0 ? "" : "not ");
        memset(out, 1, bytes);
        free(out);
      }
    }
  }
}

static void aligned_table(const char* name, void* (*function)(size_t, size_t)) {
  for (size_t a = 0; a < COUNT(kAlignments); a++) {
    size_t alignment = kAlignments[a];
    size_t promised = round_up_to_power_of_two(alignment);
    for (size_t s = 0; s < COUNT(kSizes) + COUNT(kHugeSizes); s++) {
      size_t bytes = s < COUNT(kSizes) ? kSizes[s] : kHugeSizes[s - COUNT(kSizes)];
      errno = kUntouched;
      void* object = function(alignment, bytes);
      row(name, alignment, bytes, object, promised == 0 ? 1 : promised, bytes);
    }
  }
}

static void memalign_table(void) { aligned_table("memalign", memalign); }

static void aligned_alloc_table(void) { aligned_table("aligned_alloc", aligned_alloc); }

static void* valloc_of(size_t unused, size_t bytes) { return unused == 0 ? valloc(bytes) : NULL; }

static void* pvalloc_of(size_t unused, size_t bytes) { return unused == 0 ? pvalloc(bytes) : NULL; }

static void page_table(void) {
  for (size_t i = 0; i < COUNT(kSizes); i++) {
    errno = kUntouched;
    row("valloc", 0, kSizes[i], valloc_of(0, kSizes[i]), 4096, kSizes[i]);
    errno = kUntouched;
    // pvalloc gives whole pages.
    row("pvalloc", 0, kSizes[i], pvalloc_of(0, kSizes[i]), 4096, (kSizes[i] + 4095) / 4096 * 4096);
  }
}

static void huge_requests(void) {
  for (size_t i = 0; i < COUNT(kHuge); i++) {
    size_t bytes = kHuge[i];
    errno = kUntouched;
    row("malloc", bytes, 0, malloc(bytes), 8, 0);
    errno = kUntouched;
    row("calloc 1", bytes, 0, calloc(1, bytes), 8, 0);
    errno = kUntouched;
    row("calloc 2", bytes, 0, calloc(bytes, 1), 8, 0);
    errno = kUntouched;
    row("realloc", bytes, 0, realloc(NULL, bytes), 8, 0);
    errno = kUntouched;
    row("reallocarray", bytes, 0, reallocarray(NULL, 1, bytes), 8, 0);
    errno = kUntouched;
    row("memalign", bytes, 0, memalign(64, bytes), 8, 0);
    errno = kUntouched;
    row("aligned_alloc", bytes, 0, aligned_alloc(8192, bytes), 8, 0);
    errno = kUntouched;
    row("valloc", bytes, 0, valloc(bytes), 8, 0);
    errno = kUntouched;
    row("pvalloc", bytes, 0, pvalloc(bytes), 8, 0);
  }
}

static void product_overflow(void) {
  static volatile const size_t factors[][2] = {{(size_t)1 << 32, (size_t)1 << 32},
                                               {SIZE_MAX / 2 + 1, 2},
                                               {2, SIZE_MAX / 2 + 1},
                                               {3, SIZE_MAX / 2},
                                               {SIZE_MAX, SIZE_MAX},
                                               {SIZE_MAX, 2},
                                               {(size_t)1 << 33, (size_t)1 << 31},
                                               {SIZE_MAX / 8 + 1, 8},
                                               {SIZE_MAX / 16 + 2, 16},
                                               {((size_t)1 << 32) + 1, ((size_t)1 << 32)},
                                               {0x100000001, 0xffffffff},
                                               {SIZE_MAX / 3, 5}};
  for (size_t i = 0; i < COUNT(factors); i++) {
    size_t a = factors[i][0];
    size_t b = factors[i][1];
    errno = kUntouched;
    row("calloc", a, b, calloc(a, b), 8, 0);
    errno = kUntouched;
    row("reallocarray", a, b, reallocarray(NULL, a, b), 8, 0);
    char* volatile kept = malloc(100);
    fill(kept, 100, 5);
    errno = kUntouched;
    void* moved = reallocarray(kept, a, b);
    printf("reallocarray of an object: %s, errno %d, %s\n", moved ? "object" : "NULL", errno,
           is_filled(kept, 100, 5) ? "intact" : "damaged");
    free(kept);
  }
}

static void failed_realloc(void) {
  for (size_t s = 0; s < COUNT(kSizes); s++) {
    for (size_t i = 0; i < COUNT(kHuge); i++) {
      char* volatile kept = malloc(kSizes[s]);
      fill(kept, kSizes[s], 3);
      errno = kUntouched;
      void* moved = realloc(kept, kHuge[i]);
      printf("realloc(%zu -> %#zx): %s, errno %d, %s\n", kSizes[s], kHuge[i],
             moved ? "object" : "NULL", errno,
             is_filled(kept, kSizes[s], 3) ? "intact" : "damaged");
      free(kept);
    }
  }
}

static void null_pointers(void) {
  errno = kUntouched;
  free(NULL);
  printf("free: errno %d\n", errno);
  printf("usable: %zu, errno %d\n", malloc_usable_size(NULL), errno);
  row("realloc", 0, 50, realloc(NULL, 50), 8, 50);
  errno = kUntouched;
  row("reallocarray", 5, 10, reallocarray(NULL, 5, 10), 8, 50);
}

static void reports(void) {
  void* (*volatile hidden_malloc)(size_t) = malloc;
  free(hidden_malloc(10));
  FILE* nowhere = fopen("/dev/null", "w");
  printf("malloc_info: %d %d\n", malloc_info(0, nowhere), malloc_info(1, nowhere));
  printf("mallopt: %d %d %d\n", mallopt(M_TRIM_THRESHOLD, 1 << 20), mallopt(M_MMAP_MAX, 100),
         mallopt(M_ARENA_MAX, 2));
  int trimmed = malloc_trim(0);
  printf("malloc_trim: %s\n", trimmed == 0 || trimmed == 1 ? "0 or 1" : "other");
  fclose(nowhere);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"zero_sizes", zero_sizes},
      {"realloc_to_zero", realloc_to_zero},
      {"posix_memalign_table", posix_memalign_table},
      {"memalign_table", memalign_table},
      {"aligned_alloc_table", aligned_alloc_table},
      {"page_table", page_table},
      {"huge_requests", huge_requests},
      {"product_overflow", product_overflow},
      {"failed_realloc", failed_realloc},
      {"null_pointers", null_pointers},
      {"reports", reports},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
