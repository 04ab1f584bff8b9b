// A signal at every single instruction of an allocation: the processor's trap flag raises SIGTRAP
// after each. The handler is that of a crash reporter, which allocates, prints and never comes
// back; or that of a profiler, which unwinds the stack; or which frees what it allocates and
// returns; or does the same at such length that it takes slow paths itself; or which asks the
// library for its figures.
#define MINITC_WEAK
#include "../../preload/minitc.h"

#include "check.h"

#include <sys/syscall.h>
#include <ucontext.h>
#if defined(__GLIBC__)
#include <execinfo.h>
#endif

static long steps;
static long stride;
static void (*volatile at_each_step)(void);
static uintptr_t interrupted;  // the address of the instruction that is next
static volatile int is_copy;   // this process is a copy, which goes on at full speed

#if defined(__x86_64__)
enum { kTrapFlag = 0x100 };

// Below the red zone of the function that this becomes a part of.
static inline void start_stepping(void) {
  if (is_copy) return;
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\tpushfq\n\torl %0, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::"i"(
          kTrapFlag)
      : "memory", "cc");
}

static inline void stop_stepping(void) {
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\tpushfq\n\tandl %0, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::
          "i"(~kTrapFlag)
      : "memory", "cc");
}

static void on_trap(int number, siginfo_t* info, void* context) {
  int error = errno;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  (void)number;
  (void)info;
  interrupted = (uintptr_t)registers[REG_RIP];
  if (steps++ % stride == 0) at_each_step();
  if (is_copy) registers[REG_EFL] &= ~kTrapFlag;
  errno = error;
}
#else
static void start_stepping(void) { skip("the trap flag is x86's"); }
static void stop_stepping(void) {}
static void on_trap(int number, siginfo_t* info, void* context) {
  (void)number;
  (void)info;
  (void)context;
}
#endif

// --- The handlers --------------------------------------------------------------------------------

static void* long_lived[2];

enum { kFrames = 64 };
static void* callers[kFrames];  // of what is stepped through, innermost first
static int caller_count;

#if defined(__GLIBC__)
// No unwinder gets through the instructions here that set the flag.
static int is_in_program(void) {
  extern const char __executable_start, etext;
  return interrupted >= (uintptr_t)&__executable_start && interrupted < (uintptr_t)&etext;
}

// In main(), and in whatever starts a thread: these stay what they are, step by step.
static __attribute__((noinline)) void remember_callers(void) {
  void* frames[kFrames];
  caller_count = backtrace(frames, kFrames) - 2;
  CHECK(caller_count > 0);
  memcpy(callers, frames + 2, (size_t)caller_count * sizeof *callers);
}

static void load_unwinder(void) {
  if (is_in_program()) return;
  void* frames[kFrames];
  CHECK(backtrace(frames, kFrames) > 3);
}

// From wherever it was interrupted the unwinder finds its way out of the allocator.
static void unwind_to_callers(void) {
  if (is_in_program()) return;
  void* frames[kFrames];
  int count = backtrace(frames, kFrames);
  CHECK(count < kFrames);
  for (int i = 1; i <= caller_count; i++) {
    if (i < count && frames[count - i] == callers[caller_count - i]) continue;
    fprintf(stderr, "in step %ld, at %p\n", steps, (void*)interrupted);
    CHECK(!"the stack is unwound");
  }
}
#else  // musl has no unwinder
static void remember_callers(void) { (void)callers, (void)caller_count; }
static void load_unwinder(void) {}
static void unwind_to_callers(void) { skip("no backtrace() here"); }
#endif

static void report_crash(void) {
  load_unwinder();  // which allocates
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
  pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
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

// In the functions that programs call, and which have the fast paths in them, a handler may not do
// what the next one does.
static int is_in_fast_path(void) {
  Dl_info found;
  return dladdr((void*)interrupted, &found) != 0 && found.dli_sname != NULL;
}

enum { kBusy = 40 };

static void allocate_and_free_much(void) {
  static const size_t sizes[] = {208, 60000, 16, 300000, 3000};
  unsigned char* objects[kBusy];
  for (int i = 0; i < kBusy; i++) {
    objects[i] = malloc(sizes[i / (kBusy / 5)]);
    CHECK(objects[i] != NULL);
    fill(objects[i], 16, (unsigned)i + 1000);
  }
  for (int i = kBusy - 1; i >= 0; i--) {
    CHECK(is_filled(objects[i], 16, (unsigned)i + 1000));
    free(objects[i]);
  }
}

// Calls act() in a copy of the process, which then goes on and checks what it has.
static void act_in_a_copy(void (*act)(void)) {
  pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  CHECK(child >= 0);
  if (child == 0) {
    is_copy = 1;
    alarm(10);
    act();
  } else if (!child_succeeded(child)) {
    fprintf(stderr, "in step %ld\n", steps);
    CHECK(!"the interrupted call goes on");
  }
}

static void be_busy_in_a_copy(void) {
  if (!is_in_fast_path()) act_in_a_copy(allocate_and_free_much);
}

static long told, refused;

static int count_span(const struct minitc_span* span, void* count) {
  CHECK(span->bytes != 0);
  ++*(long*)count;
  return 0;
}

// Whatever was interrupted, the answers are right, or there are none.
static void ask_library(void) {
  static char json[MINITC_STATS_JSON_BYTES];
  struct minitc_stats now;
  long spans = 0;
  errno = 777;
  const char* broken = minitc_heap_check();
  if (broken != NULL) {
    fprintf(stderr, "in step %ld: %s\n", steps, broken);
    CHECK(!"the heap is as it should be");
  }
  if (minitc_stats(&now, sizeof now) == 0) {
    told++;
    CHECK(now.mapped != 0 && now.live <= now.mapped);
    CHECK(minitc_stats_json(json, sizeof json) == strlen(json) && json[0] == '{');
    CHECK(minitc_for_each_span(count_span, &spans) == 0 && spans != 0);
  } else {
    refused++;
    CHECK(minitc_stats_json(json, sizeof json) == 0);
    CHECK(minitc_for_each_span(count_span, &spans) == -1 && spans == 0);
  }
  CHECK(minitc_stats_write() == 0);  // no file
  CHECK(errno == 777);
}

// Where the stack of a cache is half changed; a slow path, which may return thousands of runs,
// would take minutes.
static void ask_in_a_copy(void) {
  if (is_in_fast_path()) act_in_a_copy(ask_library);
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

static void* stepped_thread(void* work) {
  if (at_each_step == unwind_to_callers) remember_callers();
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

static void handle_steps_with(void (*handler)(void)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO;
  CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
  at_each_step = handler;
  stride = 1;
  for (int i = 0; i < 2; i++) long_lived[i] = malloc(3000);
  allocate_and_free();
}

// `sparse`: the handler is too slow for every instruction of the longer kinds. The strides are such
// that a loop is interrupted at each of its instructions all the same.
static void interrupt_all(int sparse) {
  static const struct {
    void (*work)(void);
    long stride;
  } kinds[] = {{fast, 2},    {refill_and_spill, 17}, {new_spans, 17}, {large, 7},
               {resize, 23}, {aligned, 23},          {trim, 211}};
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    long before = steps;
    stride = sparse ? kinds[i].stride : 1;
    if (at_each_step == unwind_to_callers) remember_callers();
    start_stepping();
    kinds[i].work();
    stop_stepping();
    CHECK(steps - before > 20);
    in_new_thread(kinds[i].work);
    CHECK(steps - before > 40);
  }
  churn(100);
}

static void crash_reporter(void) {
  handle_steps_with(crash_a_copy);
  interrupt_all(1);
}

static void unwinder(void) {
  handle_steps_with(unwind_to_callers);
  interrupt_all(0);
}

static void profiler(void) {
  handle_steps_with(allocate_and_free);
  interrupt_all(0);
}

static void work_of_copies(void) {
  static const size_t sizes[] = {208, 208, 60000, 5 << 20};
  unsigned char* taken[4];
  start_stepping();
  for (int i = 0; i < 4; i++) taken[i] = malloc(sizes[i]);
  stop_stepping();
  for (int i = 0; i < 4; i++) fill(taken[i], 200, (unsigned)i);
  if (is_copy) churn(2);
  for (int i = 0; i < 4; i++) CHECK(is_filled(taken[i], 200, (unsigned)i));
  start_stepping();
  for (int i = 0; i < 4; i++) free(taken[i]);
  stop_stepping();
  if (is_copy) churn(2);
}

static void* work_of_copies_in_thread(void* unused) {
  work_of_copies();
  if (is_copy) _exit(0);
  return unused;
}

static void busy_handler(void) {
  pthread_t thread;
  handle_steps_with(be_busy_in_a_copy);
  work_of_copies();
  if (is_copy) exit(0);
  CHECK(steps > 300);
  stride = 3;
  CHECK(pthread_create(&thread, NULL, work_of_copies_in_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

static void asker(void) {
  handle_steps_with(ask_library);
  interrupt_all(1);
  CHECK(told > 100 && refused > 100);
}

static volatile int is_over;

static void* pass_the_time(void* unused) {
  while (!is_over) {
    free(malloc(200000));
    usleep(2000);
  }
  return unused;
}

static size_t thread_cached(void) {
  struct minitc_stats now;
  CHECK(minitc_stats(&now, sizeof now) == 0);
  return now.thread_cached;
}

// Of a thread whose cache others have robbed: a question leaves it as it is.
static void asker_of_idle(void) {
  pthread_t thread;
  handle_steps_with(ask_in_a_copy);
  for (int i = 0; i < 5; i++) refill_and_spill();
  fast();
  size_t before = thread_cached();
  CHECK(pthread_create(&thread, NULL, pass_the_time, NULL) == 0);
  for (int i = 0; thread_cached() > before / 2; i++) {
    CHECK(i < 1000);
    usleep(10000);
  }
  is_over = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  start_stepping();
  fast();
  stop_stepping();
  CHECK(is_copy || steps > 20);
  churn(2);
  CHECK(minitc_heap_check() == NULL);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"crash_reporter", crash_reporter},
      {"unwinder", unwinder},
      {"profiler", profiler},
      {"busy_handler", busy_handler},
      {"asker", asker},
      {"asker_of_idle", asker_of_idle},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
