// What the allocator says of itself, and the memory that it gives back.
#include "check.h"

static void* (*volatile hidden_malloc)(size_t) = malloc;

static void* find(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  CHECK(found != NULL);
  return found;
}

static void mallinfo_adds_up(void) {
  for (int round = 0; round < 3; round++) {
    struct mallinfo2 before = mallinfo2();
    CHECK(before.arena == before.uordblks + before.fordblks);
    CHECK(before.keepcost <= before.fordblks);
    enum { kObjects = 3000 };
    static void* objects[kObjects];
    for (int i = 0; i < kObjects; i++) objects[i] = malloc(10000);
    void* large = malloc(50 << 20);
    struct mallinfo2 during = mallinfo2();
    CHECK(during.arena == during.uordblks + during.fordblks);
    size_t more = during.uordblks + during.hblkhd - before.uordblks - before.hblkhd;
    size_t asked = kObjects * 10000ul + (50ul << 20);
    CHECK(more >= asked && more < asked + asked / 8 + (2 << 20));
    for (int i = 0; i < kObjects; i++) free(objects[i]);
    free(large);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.arena == after.uordblks + after.fordblks);
    size_t left = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    CHECK(left < 4 << 20);
    // By name: the header warns about the old function, whose fields are ints.
    struct mallinfo small = ((struct mallinfo(*)(void))find("mallinfo"))();
    CHECK((size_t)small.uordblks == after.uordblks && (size_t)small.arena == after.arena);
  }
}

// Freed memory within the bound stays until malloc_trim; beyond it, it goes at once.
static void trim_returns_memory(void) {
  enum { kObjects = 600 };
  static void* objects[kObjects];
  for (int i = 0; i < kObjects; i++) {
    objects[i] = malloc(100000);
    memset(objects[i], 1, 100000);
  }
  for (int i = 0; i < kObjects; i++) free(objects[i]);
  long before = resident_kib();
  CHECK(malloc_trim(0) == 1);
  CHECK(resident_kib() < before - 45 * 1024);
  CHECK(malloc_trim(0) == 0);
  churn(10);
}

static void memory_comes_back(void) {
  enum { kSmall = 1 << 20, kLarge = 100 };
  static void* small[kSmall];
  static void* large[kLarge];
  churn(1);
  memset(small, 1, sizeof small);
  memset(large, 1, sizeof large);
  long before = resident_kib();
  for (int i = 0; i < kSmall; i++) small[i] = memset(hidden_malloc(120), 1, 120);
  for (int i = 0; i < kLarge; i++) large[i] = memset(hidden_malloc(1 << 20), 1, 1 << 20);
  CHECK(resident_kib() > before + 200 * 1024);
  for (int i = 0; i < kSmall; i++) free(small[i]);
  for (int i = 0; i < kLarge; i++) free(large[i]);
  CHECK(resident_kib() < before + (32 + 16) * 1024);
}

static void print_info(void) {
  void* kept[100];
  for (int i = 0; i < 100; i++) kept[i] = malloc((size_t)i * 100 + 1);
  CHECK(malloc_info(0, stdout) == 0);
  for (int i = 0; i < 100; i++) free(kept[i]);
}

static void print_stats(void) {
  void* kept[100];
  for (int i = 0; i < 100; i++) kept[i] = malloc((size_t)i * 100 + 1);
  malloc_stats();
  for (int i = 0; i < 100; i++) free(kept[i]);
}

static void info_write_error(void) {
  FILE* full = fopen("/dev/full", "w");
  CHECK(full != NULL);
  int result = malloc_info(0, full);
  // Whether it tells or leaves it to the stream's error flag, it does not crash and the stream
  // knows.
  int flushed = fflush(full);
  CHECK(result != 0 || flushed != 0 || ferror(full));
  fclose(full);
  churn(10);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"mallinfo_adds_up", mallinfo_adds_up},
      {"trim_returns_memory", trim_returns_memory},
      {"memory_comes_back", memory_comes_back},
      {"print_info", print_info},
      {"print_stats", print_stats},
      {"info_write_error", info_write_error},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
