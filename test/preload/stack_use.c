// LDFLAGS: -Wl,-z,now
// How deep each function of the family goes into the stack, in a fresh thread each: on painted
// stacks, whose untouched part tells. The static check of the library's own frames does not know
// what libc's functions add; this one does, as far as the calls here go.
#include "check.h"

#include <ucontext.h>

enum { kStackBytes = 64 * 1024, kPaint = 0xa5, kPerCall = 3 * 1024, kPerReport = 6 * 1024 };

static void* (*volatile hidden_malloc)(size_t) = malloc;
static void* kept[3000];
static void* object;

static void nothing(void) {}

static void small(void) { object = hidden_malloc(100); }

static void span_of_its_own(void) { object = hidden_malloc(200000); }

static void large(void) { object = hidden_malloc(3000000); }

static void zeroed(void) { object = calloc(1000, 1000); }

static void aligned(void) { object = memalign(65536, 100); }

static void give_back(void) { free(object); }

static void grow(void) { object = realloc(object, 2000000); }

static void move(void) { object = realloc(object, 20000000); }

// Overflows every tier: batches are spilled, spans given back, pages returned to the system.
static void free_many(void) {
  for (int i = 0; i < 3000; i++) free(kept[i]);
}

static void trim(void) { malloc_trim(0); }

static void report(void) { (void)mallinfo2(); }

// By name: the header warns about this one.
static struct mallinfo (*old_mallinfo)(void);
static void report_in_ints(void) { (void)old_mallinfo(); }

static ucontext_t here;
static ucontext_t there;

// Bytes of stack that the call uses.
static size_t depth(void (*call)(void)) {
  static unsigned char stack[kStackBytes] __attribute__((aligned(64)));
  memset(stack, kPaint, sizeof stack);
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = sizeof stack;
  there.uc_link = &here;
  makecontext(&there, call, 0);
  CHECK(swapcontext(&here, &there) == 0);
  size_t untouched = 0;
  while (untouched < sizeof stack && stack[untouched] == kPaint) untouched++;
  return sizeof stack - untouched;
}

static void check_depth(const char* name, void (*call)(void), size_t limit) {
  size_t bytes = depth(call) - depth(nothing);
  if (bytes > limit) fprintf(stderr, "%s: %zu bytes\n", name, bytes);
  CHECK(bytes <= limit);
}

#define CHECK_DEPTH(call) check_depth(#call, call, kPerCall)

static void* in_a_fresh_thread(void* unused) {
  CHECK_DEPTH(small);  // makes the thread's cache
  CHECK_DEPTH(give_back);
  CHECK_DEPTH(span_of_its_own);
  CHECK_DEPTH(grow);
  CHECK_DEPTH(move);
  CHECK_DEPTH(give_back);
  CHECK_DEPTH(large);
  CHECK_DEPTH(give_back);
  CHECK_DEPTH(zeroed);
  CHECK_DEPTH(give_back);
  CHECK_DEPTH(aligned);
  CHECK_DEPTH(give_back);
  for (int i = 0; i < 3000; i++) kept[i] = memset(hidden_malloc(30000), 1, 30000);
  CHECK_DEPTH(free_many);
  CHECK_DEPTH(trim);
  check_depth("mallinfo2", report, kPerReport);
  check_depth("mallinfo", report_in_ints, kPerReport);
  return unused;
}

int main(void) {
  old_mallinfo = (struct mallinfo(*)(void))dlsym(RTLD_DEFAULT, "mallinfo");
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_a_fresh_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  return 0;
}
