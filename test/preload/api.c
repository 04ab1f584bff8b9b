// The functions of minitc.h, each with what a program may count on. All symbols are weak: the
// program is linked without the library.
#define MINITC_WEAK
#include "../../preload/minitc.h"

#include "check.h"

enum { kKiB = 1 << 10, kPage = 8 << 10, kMiB = 1 << 20 };

// Keeps the compiler from leaving out what it believes to be useless.
static void* (*volatile hidden_malloc)(size_t) = malloc;

// --- Figures -------------------------------------------------------------------------------------

static struct minitc_stats now(void) {
  struct minitc_stats stats;
  CHECK(minitc_stats(&stats, sizeof stats) == 0);
  return stats;
}

static size_t sum(const struct minitc_stats* s) {
  return s->live + s->thread_cached + s->central + s->page_heap_free + s->returned;
}

static void stats_add_up(void) {
  CHECK(hidden_malloc(10) != NULL);
  struct minitc_stats before = now();
  void* block = hidden_malloc(5 * kMiB);
  struct minitc_stats with = now();
  CHECK(sum(&before) == before.mapped && sum(&with) == with.mapped);
  // It may begin behind the first line of its pages, and has one more.
  CHECK(with.live == before.live + 5 * kMiB + kPage);
  CHECK(with.large_bytes == before.large_bytes + 5 * kMiB + kPage);
  CHECK(with.large_count == before.large_count + 1);
  CHECK(with.peak >= 5 * kMiB && with.metadata > 0 && with.threads == 1);
  free(block);
  CHECK(now().live == before.live);
}

// A program of an older or newer version than the library.
static void stats_of_other_sizes(void) {
  struct {
    struct minitc_stats known;
    char beyond[100];
  } larger;
  memset(&larger, 0xff, sizeof larger);
  CHECK(minitc_stats(&larger.known, sizeof larger) == 0);
  CHECK(larger.known.mapped == sum(&larger.known) && is_zero(larger.beyond, sizeof larger.beyond));

  struct minitc_stats smaller;
  memset(&smaller, 0xff, sizeof smaller);
  CHECK(minitc_stats(&smaller, offsetof(struct minitc_stats, central)) == 0);
  CHECK(smaller.live == larger.known.live && smaller.central == (size_t)-1);
  CHECK(minitc_stats(&smaller, 0) == 0);
  CHECK(minitc_stats(NULL, sizeof smaller) == -1);
}

// Prints the object; Python checks it.
static void json(void) {
  static char buffer[MINITC_STATS_JSON_BYTES];
  CHECK(hidden_malloc(3000) != NULL && hidden_malloc(5 * kMiB) != NULL);
  size_t length = minitc_stats_json(buffer, sizeof buffer);
  CHECK(length > 500 && length < sizeof buffer && strlen(buffer) == length);
  puts(buffer);
}

static void json_without_room(void) {
  char whole[MINITC_STATS_JSON_BYTES];
  char part[100];
  minitc_stats_json(whole, sizeof whole);
  size_t needed = minitc_stats_json(NULL, 0);
  CHECK(needed > 500);
  memset(part, 'x', sizeof part);
  CHECK(minitc_stats_json(part, 50) > 500);
  CHECK(strlen(part) == 49 && memcmp(part, whole, 30) == 0 && part[50] == 'x');
  CHECK(minitc_stats_json(part, 1) > 500 && part[0] == '\0' && part[1] == whole[1]);
}

// --- Options -------------------------------------------------------------------------------------

static void options(void) {
  CHECK(minitc_option("MINITC_STATS") == 0);
  CHECK(minitc_option("MINITC_THREAD_CACHE_TOTAL") == 3 * kMiB);
  CHECK(minitc_option("MINITC_ON_BAD_FREE") == 1);
  CHECK(minitc_option("MINITC_STATS_FILE") == 1);
  CHECK(minitc_option("MINITC_STATS_INTERVAL") == 1000);
  CHECK(minitc_option("MINITC_") == -1 && minitc_option("") == -1 && minitc_option(NULL) == -1);
}

// --- Giving memory back --------------------------------------------------------------------------

static void release(void) {
  static void* blocks[20000];
  for (int i = 0; i < 20000; i++) CHECK((blocks[i] = memset(hidden_malloc(1000), 1, 1000)) != NULL);
  long before = resident_kib();
  for (int i = 0; i < 20000; i++) free(blocks[i]);
  size_t bytes = minitc_release();
  CHECK(bytes >= 15 * kMiB);
  CHECK(before - resident_kib() >= 15 * kKiB);
  CHECK(now().page_heap_free == 0);
  CHECK(minitc_release() == 0);
}

static void thread_idle(void) {
  void* blocks[100];
  for (int i = 0; i < 100; i++) blocks[i] = hidden_malloc(2000);
  for (int i = 0; i < 100; i++) free(blocks[i]);
  CHECK(now().thread_cached > 0);
  minitc_thread_idle();
  CHECK(now().thread_cached == 0);
  minitc_thread_idle();
  for (int i = 0; i < 100; i++) CHECK((blocks[i] = hidden_malloc(2000)) != NULL);
  for (int i = 0; i < 100; i++) free(blocks[i]);
  CHECK(now().thread_cached > 0);
}

static void* idle_at_once(void* unused) {
  minitc_thread_idle();
  CHECK(minitc_heap_check() == NULL);
  return unused;
}

static void thread_idle_without_a_cache(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, idle_at_once, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

// --- Looking inside ------------------------------------------------------------------------------

typedef struct Sums {
  size_t bytes[4];
  size_t small_used;
  uintptr_t end;
  const void* wanted;
  struct minitc_span found;
} Sums;

static int add_span(const struct minitc_span* span, void* argument) {
  Sums* sums = (Sums*)argument;
  uintptr_t start = (uintptr_t)span->start;
  CHECK(span->bytes > 0 && start >= sums->end);
  CHECK((unsigned)span->state < 4);
  CHECK((span->objects != 0) == (span->state <= MINITC_SPAN_LARGE));
  CHECK(span->free_objects <= span->objects && span->objects * span->object_bytes <= span->bytes);
  sums->end = start + span->bytes;
  sums->bytes[span->state] += span->bytes;
  if (span->state == MINITC_SPAN_SMALL) {
    sums->small_used += (span->objects - span->free_objects) * span->object_bytes;
  }
  if ((uintptr_t)sums->wanted - start < span->bytes) sums->found = *span;
  return 0;
}

static void spans(void) {
  void* small = hidden_malloc(1000);
  void* large = hidden_malloc(700 * kKiB);
  CHECK(small != NULL && large != NULL);
  free(hidden_malloc(2 * kMiB));
  Sums sums = {.wanted = small};
  CHECK(minitc_for_each_span(add_span, &sums) == 0);
  struct minitc_stats s = now();
  CHECK(sums.bytes[0] + sums.bytes[1] + sums.bytes[2] + sums.bytes[3] == s.mapped);
  CHECK(sums.bytes[MINITC_SPAN_LARGE] == s.large_bytes);
  CHECK(sums.bytes[MINITC_SPAN_FREE] == s.page_heap_free);
  CHECK(sums.bytes[MINITC_SPAN_RETURNED] == s.returned);
  CHECK(sums.small_used >= s.live - s.large_bytes + s.thread_cached);
  CHECK(sums.found.state == MINITC_SPAN_SMALL && sums.found.object_bytes == 1024);
  sums = (Sums){.wanted = large};
  CHECK(minitc_for_each_span(add_span, &sums) == 0);
  CHECK(sums.found.objects == 1 && sums.found.state == MINITC_SPAN_LARGE);
  CHECK(sums.found.object_bytes == malloc_usable_size(large));
  CHECK((char*)sums.found.start + sums.found.bytes - sums.found.object_bytes == large);
}

static int stop_at_third(const struct minitc_span* span, void* argument) {
  CHECK(span != NULL);
  return ++*(int*)argument == 3 ? 42 : 0;
}

static void spans_until_told(void) {
  int calls = 0;
  for (int i = 0; i < 5; i++) CHECK(hidden_malloc(kMiB) != NULL);
  CHECK(minitc_for_each_span(stop_at_third, &calls) == 42 && calls == 3);
  CHECK(minitc_for_each_span(NULL, NULL) == -1);
}

static int work_in_visit(const struct minitc_span* span, void* argument) {
  static int depth;
  CHECK(span->bytes != 0);
  free(hidden_malloc(100 + span->bytes % 5000));
  free(hidden_malloc(3 * kMiB));
  if (++*(int*)argument % 50 == 1 && depth == 0) {
    int calls = 0;
    depth = 1;
    CHECK(minitc_for_each_span(work_in_visit, &calls) == 0 && calls > 0);
    CHECK(minitc_heap_check() == NULL);
    minitc_release();
    depth = 0;
  }
  return 0;
}

static void* work_for_ever(void* stop) {
  while (!__atomic_load_n((int*)stop, __ATOMIC_RELAXED)) churn(1);
  return NULL;
}

// With other threads at work, too.
static void spans_whose_visitor_allocates(void) {
  pthread_t threads[2];
  int stop = 0;
  int calls = 0;
  for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work_for_ever, &stop) == 0);
  for (int i = 0; i < 20; i++) CHECK(minitc_for_each_span(work_in_visit, &calls) == 0);
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(calls > 0);
}

static void heap_check(void) {
  CHECK(minitc_heap_check() == NULL);
  churn(20);
  CHECK(minitc_heap_check() == NULL);
  pid_t child = fork_checked();
  if (child == 0) _exit(minitc_heap_check() == NULL ? 0 : 1);
  CHECK(child_succeeded(child));
}

// The bitmaps lie with the library's own data. Whoever overwrites that is told which rule broke.
static void heap_check_of_overwritten_data(void) {
  void* object = hidden_malloc(700 * kKiB);
  uintptr_t page = (uintptr_t)object / kPage;
  uintptr_t pages = (malloc_usable_size(object) + kPage - 1) / kPage;
  FILE* maps = fopen("/proc/self/maps", "re");
  char line[400];
  uintptr_t start, end;
  uintptr_t* span = NULL;
  CHECK(maps != NULL && object != NULL);
  // A span begins with the number of its first page and of its pages.
  while (span == NULL && fgets(line, sizeof line, maps) != NULL) {
    if (sscanf(line, "%zx-%zx rw-p", &start, &end) != 2 || strchr(line, '/') || strchr(line, '[')) {
      continue;
    }
    for (uintptr_t at = start; at < end && span == NULL; at += 64) {
      uintptr_t* words = (uintptr_t*)at;
      if (words[0] == page && words[1] == pages) span = words;
    }
  }
  fclose(maps);
  CHECK(span != NULL);
  span[1]++;
  const char* broken = minitc_heap_check();
  span[1]--;
  CHECK(broken != NULL && strstr(broken, "core/") == broken);
  CHECK(minitc_heap_check() == NULL);
}

// --- All -----------------------------------------------------------------------------------------

static void errno_stays(void) {
  char buffer[100];
  int calls = 0;
  errno = 77;
  now();
  minitc_stats_json(buffer, sizeof buffer);
  minitc_stats_write();
  minitc_option("MINITC_STATS");
  minitc_for_each_span(stop_at_third, &calls);
  minitc_heap_check();
  minitc_thread_idle();
  free(hidden_malloc(50 * kMiB));
  minitc_release();
  CHECK(errno == 77);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"stats_add_up", stats_add_up},
      {"stats_of_other_sizes", stats_of_other_sizes},
      {"json", json},
      {"json_without_room", json_without_room},
      {"options", options},
      {"release", release},
      {"thread_idle", thread_idle},
      {"thread_idle_without_a_cache", thread_idle_without_a_cache},
      {"spans", spans},
      {"spans_until_told", spans_until_told},
      {"spans_whose_visitor_allocates", spans_whose_visitor_allocates},
      {"heap_check", heap_check},
      {"heap_check_of_overwritten_data", heap_check_of_overwritten_data},
      {"errno_stays", errno_stays},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
