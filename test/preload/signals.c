// LDFLAGS: -Wl,-z,now
// Signals at 1 kHz that interrupt allocations anywhere, and stacks as small as they can be.
#include "check.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long ticks;

static void count_tick(int number) {
  int error = errno;
  (void)number;
  ticks++;
  // A handler may use the stack and change errno, as profilers do.
  volatile char room[2000];
  for (size_t i = 0; i < sizeof room; i += 100) room[i] = (char)i;
  errno = error;
}

static void start_ticks(void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  CHECK(sigaction(SIGPROF, &action, NULL) == 0);
  struct itimerval every_ms = {{0, 1000}, {0, 1000}};
  CHECK(setitimer(ITIMER_PROF, &every_ms, NULL) == 0);
}

static double cpu_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Patterned objects, so that one handed out twice, or a list broken by the interruption, shows.
static void* work(void* seed) {
  enum { kObjects = 512 };
  unsigned char** objects = calloc(kObjects, sizeof *objects);
  unsigned sizes[kObjects];
  unsigned long state = (unsigned long)(uintptr_t)seed;
  double end = cpu_seconds() + 1.0;
  while (cpu_seconds() < end) {
    for (int step = 0; step < 2000; step++) {
      state = state * 6364136223846793005ul + 1442695040888963407ul;
      unsigned i = (unsigned)(state >> 40) % kObjects;
      if (objects[i] != NULL) {
        CHECK(is_filled(objects[i], sizes[i] < 64 ? sizes[i] : 64, i));
        free(objects[i]);
      }
      sizes[i] = (unsigned)(state >> 20) % (step % 64 == 0 ? 400000 : 600) + 1;
      objects[i] = malloc(sizes[i]);
      fill(objects[i], sizes[i] < 64 ? sizes[i] : 64, i);
    }
  }
  for (int i = 0; i < kObjects; i++) free(objects[i]);
  free(objects);
  return NULL;
}

// A handler that allocates, as crash reporters and some profilers do. It frees all that it took.
static void allocate_in_tick(int number) {
  static const size_t sizes[] = {16, 100, 600, 5000, 100000, 300000};
  int error = errno;
  unsigned char* objects[6];
  (void)number;
  ticks++;
  for (int i = 0; i < 6; i++) {
    objects[i] = malloc(sizes[i]);
    CHECK(objects[i] != NULL);
    fill(objects[i], 16, (unsigned)i + 1000);
  }
  for (int i = 5; i >= 0; i--) {
    CHECK(is_filled(objects[i], 16, (unsigned)i + 1000));
    free(objects[i]);
  }
  errno = error;
}

static void profiled(void) {
  start_ticks(count_tick);
  work((void*)1);
  CHECK(ticks > 50);
}

static void profiled_threads(void) {
  pthread_t threads[3];
  start_ticks(count_tick);
  for (uintptr_t i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, (void*)(i + 1));
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(ticks > 50);
}

static void handler_allocates(void) {
  start_ticks(allocate_in_tick);
  work((void*)1);
  CHECK(ticks > 50);
}

static void handler_allocates_in_threads(void) {
  pthread_t threads[3];
  start_ticks(allocate_in_tick);
  for (uintptr_t i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, (void*)(i + 1));
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(ticks > 50);
}

static void* use_every_path(void* unused) {
  churn(20);
  void* objects[300];
  for (int i = 0; i < 300; i++) objects[i] = malloc(2000);
  for (int i = 0; i < 300; i++) objects[i] = realloc(objects[i], 4000);
  for (int i = 0; i < 300; i++) free(objects[i]);
  char* large = malloc(400000);
  large = realloc(large, 4000000);
  CHECK(large != NULL);
  free(large);
  void* aligned = memalign(65536, 100);
  free(aligned);
  malloc_trim(0);
  (void)mallinfo2();
  return unused;
}

// 2 KiB on musl, too few for any work; 128 KiB on AArch64.
static size_t least_stack(void) {
  long least = sysconf(_SC_THREAD_STACK_MIN);
  return least < 16384 ? 16384 : (size_t)least;
}

static void smallest_stacks(void) {
  pthread_attr_t attributes;
  CHECK(pthread_attr_init(&attributes) == 0);
  CHECK(pthread_attr_setstacksize(&attributes, least_stack()) == 0);
  for (int i = 0; i < 200; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, use_every_path, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
}

// The first allocation of all happens on such a stack.
static void smallest_stack_first(void) {
  static char stack[256 * 1024] __attribute__((aligned(65536)));
  CHECK(least_stack() <= sizeof stack);
  pthread_attr_t attributes;
  pthread_t thread;
  CHECK(pthread_attr_init(&attributes) == 0);
  CHECK(pthread_attr_setstack(&attributes, stack, least_stack()) == 0);
  CHECK(pthread_create(&thread, &attributes, use_every_path, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

static void use_in_handler(int number) {
  (void)number;
  for (int round = 0; round < 3; round++) {
    char* volatile object = malloc(100);
    object = realloc(object, 2000);
    free(object);
    object = calloc(1, 400000);
    object = realloc(object, 4000000);
    CHECK(object[399999] == 0);
    free(object);
    object = memalign(65536, 100);
    free(object);
    malloc_trim(0);
  }
}

// A handler on the smallest alternate stack, which holds the signal's frame, with 4 KiB more: 3 for
// a call and 1 for the handler. It does not interrupt any allocation. Below lies no memory.
static void alternate_stack(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t least = (size_t)MINSIGSTKSZ;
  if (least < getauxval(AT_MINSIGSTKSZ)) least = getauxval(AT_MINSIGSTKSZ);  // as on musl
  size_t bytes = least + 4096;
  size_t whole = (bytes + page - 1) / page * page;
  char* memory = mmap(NULL, page + whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED && mprotect(memory + page, whole, PROT_READ | PROT_WRITE) == 0);
  stack_t stack = {memory + page, 0, bytes};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = use_in_handler;
  action.sa_flags = SA_ONSTACK;
  CHECK(sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
  for (int i = 0; i < 10; i++) raise(SIGUSR1);
}

static void exit_at_once(int number) {
  (void)number;
  exit(0);
}

// Ends the program wherever it is.
static void handler_exits(void) {
  start_ticks(exit_at_once);
  for (;;) free(malloc(100));
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"profiled", profiled},
      {"profiled_threads", profiled_threads},
      {"handler_allocates", handler_allocates},
      {"handler_allocates_in_threads", handler_allocates_in_threads},
      {"smallest_stacks", smallest_stacks},
      {"smallest_stack_first", smallest_stack_first},
      {"alternate_stack", alternate_stack},
      {"handler_exits", handler_exits},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
