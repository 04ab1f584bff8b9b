// A signal at every single instruction of an allocation: the processor's trap flag raises SIGTRAP
// after each. The handler is either that of a crash reporter, which allocates, prints and never
// comes back, or that of a profiler, which frees what it allocates and returns.
#include "check.h"

#include <sys/syscall.h>

static long steps;
static long stride;
static void (*volatile at_each_step)(void);

static void on_trap(int number) {
  int error = errno;
  (void)number;
  if (steps++ % stride == 0) at_each_step();
  errno = error;
}

#if defined(__x86_64__)
// Below the red zone of the function that this becomes a part of.
static inline void start_stepping(void) {
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}

static inline void stop_stepping(void) {
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\tpushfq\n\tandl $~0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), "
      "%%rsp" ::
          : "memory", "cc");
}
#else
static inline void start_stepping(void) { skip("the trap flag is x86's"); }
static inline void stop_stepping(void) {}
#endif

// --- The two handlers ----------------------------------------------------------------------------

static void* long_lived[2];

static void report_crash(void) {
  void* objects[60];
  char* text = NULL;
  for (size_t i = 0; i < 60; i++) {
    objects[i] = i % 3 == 0 ? calloc(1, i * i + 1) : malloc(i % 20 == 19 ? 300000 : i * 40 + 1);
    CHECK(objects[i] != NULL);
    fill(objects[i], i + 1, (unsigned)i);
  }
  for (size_t i = 0; i < 60; i++) CHECK(is_filled(objects[i], i + 1, (unsigned)i));
  for (size_t i = 0; i < 60; i += 2) free(objects[i]);
  free(long_lived[0]);
  (void)!realloc(long_lived[1], 5000);
  objects[1] = realloc(objects[1], 10000);
  FILE* stream = fopen("/dev/null", "w");
  CHECK(stream != NULL && fprintf(stream, "crashed in step %ld", steps) > 0);
  CHECK(fclose(stream) == 0);
  CHECK(asprintf(&text, "%s %ld", strdup("in step"), steps) > 0);
  _exit(0);
}

// A copy of the process crashes here, as it is; fork would run handlers. It has 10 seconds.
static void crash_a_copy(void) {
  pid_t child = (pid_t)syscall(SYS_fork);
  CHECK(child >= 0);
  if (child == 0) {
    alarm(10);
    report_crash();
  }
  if (!child_succeeded(child)) {
    fprintf(stderr, "in step %ld\n", steps);
    CHECK(!"the crash was reported");
  }
}

static void allocate_and_free(void) {
  static const size_t sizes[] = {100, 24, 1000, 100, 300000, 24};
  unsigned char* objects[6];
  for (int i = 0; i < 6; i++) {
    objects[i] = malloc(sizes[i]);
    CHECK(objects[i] != NULL);
    fill(objects[i], 24, (unsigned)i + 1000);
  }
  for (int i = 5; i >= 0; i--) {
    CHECK(is_filled(objects[i], 24, (unsigned)i + 1000));
    free(objects[i]);
  }
}

// --- What is interrupted -------------------------------------------------------------------------

enum { kObjects = 12 };
static void* objects[kObjects];

static void malloc_all(size_t size) {
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(size);
}

static void free_all(void) {
  for (int i = 0; i < kObjects; i++) free(objects[i]);
}

static void fast(void) {
  void* volatile object = malloc(100);
  free(object);
}

static void refill_and_spill(void) {
  malloc_all(208);
  free_all();
}

static void new_spans(void) {
  for (int i = 0; i < 3; i++) objects[i] = malloc(60000);
  for (int i = 0; i < 3; i++) free(objects[i]);
}

static void large(void) {
  void* volatile object = malloc(50 << 20);
  free(object);
}

static void resize(void) {
  char* object = malloc(100);
  object = realloc(object, 500);
  free(object);
  object = malloc(600000);
  for (size_t mib = 3; mib <= 9; mib *= 3) object = realloc(object, mib << 20);
  object = realloc(object, 1 << 20);
  free(object);
}

static void aligned(void) {
  free(memalign(64, 5000));
  free(memalign(1 << 20, 3 << 20));
  free(calloc(1, 400));
}

static void trim(void) { malloc_trim(0); }

static void look(void) {
  (void)mallinfo2();
  (void)malloc_usable_size(long_lived[1]);
}

static void* stepped_thread(void* work) {
  start_stepping();
  ((void (*)(void))work)();
  stop_stepping();
  return NULL;
}

// The thread's first allocation makes its cache; its end, stepped through or not, takes it away.
static void in_new_thread(void (*work)(void)) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, stepped_thread, (void*)work) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

// `sparse`: the handler is too slow for every instruction of the longer kinds. The strides are such
// that a loop is interrupted at each of its instructions all the same.
static void interrupt_all(void (*handler)(void), int sparse) {
  static const struct {
    void (*work)(void);
    long stride;
  } kinds[] = {{fast, 1},    {refill_and_spill, 13}, {new_spans, 13}, {large, 5},
               {resize, 17}, {aligned, 17},          {trim, 101},     {look, 53}};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_trap;
  CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
  at_each_step = handler;
  for (int i = 0; i < 2; i++) long_lived[i] = malloc(3000);
  allocate_and_free();
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    long before = steps;
    stride = sparse ? kinds[i].stride : 1;
    start_stepping();
    kinds[i].work();
    stop_stepping();
    CHECK(steps - before > 20);
    in_new_thread(kinds[i].work);
    CHECK(steps - before > 40);
  }
  churn(100);
}

static void crash_reporter(void) { interrupt_all(crash_a_copy, 1); }

static void profiler(void) { interrupt_all(allocate_and_free, 0); }

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"crash_reporter", crash_reporter},
      {"profiler", profiler},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
