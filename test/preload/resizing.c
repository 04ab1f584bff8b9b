// realloc: every usable byte survives, in place or moved, small or large.
#include "check.h"

#include <sys/resource.h>

enum { kPage = 8 << 10, kSmallLimit = 128 << 10 };
static const int kUntouched = 777;

static void check_resize(char* object, size_t to, unsigned seed) {
  size_t had = malloc_usable_size(object);
  fill(object, had, seed);
  char* moved = realloc(object, to);
  CHECK(moved != NULL);
  size_t has = malloc_usable_size(moved);
  CHECK(has >= to);
  CHECK(is_filled(moved, had < has ? had : has, seed));
  fill(moved, has, seed + 1);
  CHECK(is_filled(moved, has, seed + 1));
  free(moved);
}

static void realloc_keeps_usable_bytes(void) {
  static const size_t sizes[] = {
      1,      8,       9,      24, 100, 1000, 1025, 5000, 70000, kSmallLimit, kSmallLimit + 1,
      400000, 1 << 20, 3000000};
  enum { kSizes = sizeof sizes / sizeof sizes[0] };
  for (unsigned i = 0; i < kSizes * kSizes; i++) {
    check_resize(malloc(sizes[i / kSizes]), sizes[i % kSizes], i);
  }
}

static void realloc_small_steps(void) {
  for (size_t size = first_class(); size <= kSmallLimit; size = next_step(size)) {
    check_resize(malloc(size), size + 1, 1);
    check_resize(malloc(size), size - 1, 2);
    check_resize(malloc(size), size / 2 + 1, 3);
    check_resize(malloc(size), size * 2, 4);
  }
}

static void realloc_same_size_stays(void) {
  for (size_t size = 1; size < 8 << 20; size += size / 3 + 1) {
    void* volatile object = malloc(size);
    CHECK(realloc(object, size) == object);
    CHECK(realloc(object, malloc_usable_size(object)) == object);
    free(object);
  }
}

static void realloc_aligned(void) {
  for (size_t alignment = 16; alignment <= 1 << 20; alignment *= 4) {
    static const size_t sizes[] = {1, 100, 5000, 70000, 300000, 2000000};
    enum { kSizes = sizeof sizes / sizeof sizes[0] };
    for (unsigned i = 0; i < kSizes * kSizes; i++) {
      char* object = memalign(alignment, sizes[i / kSizes]);
      CHECK(object != NULL && (uintptr_t)object % alignment == 0);
      check_resize(object, sizes[i % kSizes], i);
    }
  }
}

static void realloc_one_step_at_a_time(void) {
  char* object = NULL;
  for (size_t size = 0; size < 20 << 20; size += 256) {
    object = realloc(object, size + 256);
    CHECK(object != NULL);
    object[size] = (char)(size / 256);
    object[size + 255] = (char)(size / 256 + 1);
  }
  for (size_t size = 0; size < 20 << 20; size += 256) {
    CHECK(object[size] == (char)(size / 256));
    CHECK(object[size + 255] == (char)(size / 256 + 1));
  }
  for (size_t size = 20 << 20; size > 4096; size -= 4096) {
    object = realloc(object, size);
    CHECK(object != NULL && object[size - 256] == (char)((size - 256) / 256));
  }
  free(object);
}

static void realloc_grows_in_place(void) {
  // Two neighbours in memory, whichever way the heap grows.
  char* object = malloc(400000);
  char* next = malloc(2 << 20);
  char* guard = malloc(400000);
  // The next begins at a line of the page at which this one ends.
  for (int i = 0; (uintptr_t)next / kPage * kPage != (uintptr_t)object + malloc_usable_size(object);
       i++) {
    CHECK(i < 50);
    object = guard;
    next = malloc(2 << 20);
    guard = malloc(400000);
  }
  size_t usable = malloc_usable_size(object);
  fill(object, usable, 1);
  free(next);
  char* volatile before = object;
  object = realloc(object, 3 << 19);
  CHECK(object == before);
  CHECK(is_filled(object, usable, 1));
  fill(object, malloc_usable_size(object), 2);
  // What it did not take is free still, and in nobody's way.
  char* rest = malloc(400000);
  fill(rest, malloc_usable_size(rest), 3);
  CHECK(is_filled(object, malloc_usable_size(object), 2));
  free(rest);
  free(guard);
  free(object);
}

static long peak_kib(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// A large move takes the pages along: at no time are there two copies.
static void realloc_moves_pages(void) {
  enum { kMiB = 1 << 20, kPage = 4096 };
  size_t size = 64 * kMiB;
  char* object = malloc(size);
  void* obstacles[3];
  for (size_t i = 0; i < size; i += kPage) object[i] = (char)(i / kPage % 251 + 1);
  for (int i = 0; i < 3; i++) {
    obstacles[i] = malloc(kMiB);
    object = realloc(object, size + (size_t)(i + 1) * 40 * kMiB);
    CHECK(object != NULL);
    for (size_t k = 0; k < size; k += kPage) CHECK(object[k] == (char)(k / kPage % 251 + 1));
  }
  CHECK(peak_kib() < 64 * 1024 + 24 * 1024);
  object = realloc(object, 2 * kMiB);
  for (size_t k = 0; k < 2 * kMiB; k += kPage) CHECK(object[k] == (char)(k / kPage % 251 + 1));
  free(object);
  for (int i = 0; i < 3; i++) free(obstacles[i]);
}

static void realloc_to_zero_frees(void) {
  for (int i = 0; i < 20000; i++) {
    size_t size = i % 4 == 0 ? 3 << 20 : i % 4 == 1 ? 200000 : i % 4 == 2 ? 3000 : 40;
    void* object = malloc(size);
    CHECK(object != NULL);
    memset(object, 1, size < 64 ? size : 64);
    errno = kUntouched;
    CHECK(realloc(object, 0) == NULL);
    CHECK(errno == kUntouched);
  }
  CHECK(resident_kib() < 100 * 1024);
  struct mallinfo2 info = mallinfo2();
  CHECK(info.uordblks + info.hblkhd < 8 << 20);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"realloc_keeps_usable_bytes", realloc_keeps_usable_bytes},
      {"realloc_small_steps", realloc_small_steps},
      {"realloc_same_size_stays", realloc_same_size_stays},
      {"realloc_aligned", realloc_aligned},
      {"realloc_one_step_at_a_time", realloc_one_step_at_a_time},
      {"realloc_grows_in_place", realloc_grows_in_place},
      {"realloc_moves_pages", realloc_moves_pages},
      {"realloc_to_zero_frees", realloc_to_zero_frees},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
