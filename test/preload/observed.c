// What debuggers, profilers and checkers of memory look at: threads that use every part of the
// allocator, each function of the family, and one planted mistake.
#include "check.h"

static void* (*volatile hidden_malloc)(size_t) = malloc;

static void* use_and_free(void* unused) {
  churn(5);
  void* objects[200];
  for (int i = 0; i < 200; i++) objects[i] = hidden_malloc((size_t)i * 40 + 1);
  for (int i = 0; i < 200; i++) objects[i] = realloc(objects[i], (size_t)i * 90 + 1);
  for (int i = 0; i < 200; i++) free(objects[i]);
  return unused;
}

// Every function that gives memory; free and realloc have to know what each gave.
static void all_functions(void) {
  void* objects[8];
  CHECK((objects[0] = hidden_malloc(100)) != NULL);
  CHECK((objects[1] = calloc(10, 10)) != NULL && is_zero(objects[1], 100));
  CHECK((objects[2] = realloc(NULL, 100)) != NULL);
  CHECK((objects[3] = reallocarray(NULL, 10, 10)) != NULL);
  CHECK((objects[4] = aligned_alloc(64, 128)) != NULL);
  CHECK((objects[5] = memalign(64, 100)) != NULL);
  CHECK(posix_memalign(&objects[6], 64, 100) == 0);
  CHECK((objects[7] = valloc(100)) != NULL);
  for (int i = 0; i < 8; i++) {
    CHECK(malloc_usable_size(objects[i]) >= 100);
    fill(objects[i], 100, (unsigned)i);
    objects[i] = i % 2 == 0 ? reallocarray(objects[i], 5, 100) : realloc(objects[i], 500);
    CHECK(objects[i] != NULL && is_filled(objects[i], 100, (unsigned)i));
    free(objects[i]);
  }
}

static void no_mistake(void) {
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, use_and_free, NULL) == 0);
  use_and_free(NULL);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  all_functions();
}

__attribute__((noinline)) static void forget(size_t bytes) {
  char* volatile object = hidden_malloc(bytes);
  object[0] = 1;
  object = NULL;
}

static void leak(void) {
  no_mistake();
  forget(1234);
}

static void overrun(void) {
  char* volatile object = hidden_malloc(100);
  object[100] = 1;
  free(object);
}

static void use_after_free(void) {
  char* volatile object = hidden_malloc(100);
  free(object);
  volatile char byte = object[3];
  (void)byte;
}

static volatile int unguarded;

// At many moments: a sanitizer may miss two accesses at the same moment.
static void* count_unguarded(void* unused) {
  for (int i = 0; i < 20; i++) {
    unguarded++;
    usleep(500);
  }
  return unused;
}

static void race(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, count_unguarded, NULL) == 0);
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void undefined_shift(void) {
  volatile int bits = 40;
  volatile int result = 1 << bits;
  (void)result;
}

// Where a debugger stops to call functions of ours.
__attribute__((noinline)) void stop_here(void* object) { asm volatile("" : : "r"(object)); }

static void stop(void) {
  void* object = hidden_malloc(100);
  stop_here(object);
  free(object);
  // New memory is mapped, under the locks of every tier.
  for (int i = 1; i < 200; i++) free(hidden_malloc((size_t)i * 20000));
  churn(5);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"no_mistake", no_mistake},
      {"leak", leak},
      {"overrun", overrun},
      {"use_after_free", use_after_free},
      {"race", race},
      {"undefined_shift", undefined_shift},
      {"stop", stop},
      {NULL, NULL},
  };
  int status = run_case(argc, argv, cases);
  puts("done");
  return status;
}
