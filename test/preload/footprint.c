// What a process claims of the system: what a kernel that promises no more than it has
// (vm.overcommit_memory=2) charges it with, its largest resident set, the kinds of its mappings,
// and what there is to write to a core file.
#include "check.h"

enum { kKiB = 1 << 10, kMiB = 1 << 20 };

static void* (*volatile hidden_malloc)(size_t) = malloc;
static char** words;

// A line of /proc/self/status in bytes, without an allocation.
static size_t status_bytes(const char* name) {
  static char text[8192];
  int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  CHECK(length > 0);
  text[length] = '\0';
  char* line = strstr(text, name);
  CHECK(line != NULL);
  return strtoul(line + strlen(name), NULL, 10) * kKiB;
}

// --- The charge ----------------------------------------------------------------------------------

// Private writable mappings are what is charged.
static size_t charge(void) { return status_bytes("VmData:"); }

// At every step it grows by little more than what the objects hold. A heap that crosses a multiple
// of 4 GiB, as it does in one start of some hundred, needs a second leaf of the page map.
static void fill_up(size_t bytes, size_t total) {
  const size_t leaf = 9 * kMiB / 2;
  static size_t live;
  static size_t before;
  static void* last;
  if (before == 0) before = charge();
  for (size_t i = 1, end = live + total; live < end; i++) {
    void** object = hidden_malloc(bytes);
    CHECK(object != NULL);
    *object = last;
    last = object;
    live += malloc_usable_size(object);
    if (i % (bytes < 10000 ? 1000 : 10) != 0) continue;
    size_t now = charge() - before;
    if (now <= live + live / 5 + 8 * kMiB + leaf) continue;
    fprintf(stderr, "%zu MiB are charged for %zu MiB\n", now / kMiB, live / kMiB);
    CHECK(!"the charge is little more than what is live");
  }
}

static void little_objects(void) { fill_up(16, 50 * kMiB); }

static void small_objects(void) { fill_up(112, 200 * kMiB); }

static void middle_objects(void) { fill_up(100000, 300 * kMiB); }

static void large_objects(void) { fill_up(3000000, 500 * kMiB); }

static void* small_in_a_thread(void* unused) {
  fill_up(1000, 20 * kMiB);
  return unused;
}

static void one_thread_after_the_other(void) {
  for (int i = 0; i < 20; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, small_in_a_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
}

// --- The resident set ----------------------------------------------------------------------------

enum { kPhaseBytes = 40 * kMiB, kThreads = 4, kKept = 16 };
static size_t phase_bytes;

// A thread's share of one phase: all of one size, nearly all freed at the end.
static void* one_share(void* unused) {
  void* list = NULL;
  for (size_t held = 0; held < kPhaseBytes / kThreads; held += phase_bytes) {
    void** object = memset(hidden_malloc(phase_bytes), 1, phase_bytes);
    *object = list;
    list = object;
  }
  for (int i = 0; list != NULL; i++) {
    void* next = *(void**)list;
    if (i >= kKept) free(list);
    list = next;
  }
  return unused;
}

// A program whose needs change, phase by phase, holds at most 40 MiB at a time, and a container may
// hold words[2] MiB: beyond that the kernel would kill it.
static void phases(void) {
  static const size_t sizes[] = {16, 64, 200, 1000, 3000, 9000, 30000, 100000, 40};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    pthread_t threads[kThreads];
    phase_bytes = sizes[i];
    for (int k = 0; k < kThreads; k++) {
      CHECK(pthread_create(&threads[k], NULL, one_share, NULL) == 0);
    }
    for (int k = 0; k < kThreads; k++) CHECK(pthread_join(threads[k], NULL) == 0);
  }
  size_t peak = status_bytes("VmHWM:");
  if (peak > strtoul(words[2], NULL, 10) * kMiB) {
    fprintf(stderr, "%zu MiB were resident\n", peak / kMiB);
    CHECK(!"the container would hold it");
  }
}

// --- The mappings --------------------------------------------------------------------------------

static void* churn_in_thread(void* unused) {
  churn(100);
  return unused;
}

// Of those that no file is behind none is but readable and writable: there is no reserve that has
// to be told from memory.
static void only_plain_mappings(void) {
  pthread_t thread;
  churn(100);
  free(memset(hidden_malloc(100 * kMiB), 1, 100 * kMiB));
  CHECK(pthread_create(&thread, NULL, churn_in_thread, NULL) == 0);
  // Each stack has a guard; it goes at the end, or stays in glibc's cache of stacks.
  pthread_attr_t attributes;
  void* stack;
  size_t stack_bytes;
  CHECK(pthread_getattr_np(thread, &attributes) == 0);
  CHECK(pthread_attr_getstack(&attributes, &stack, &stack_bytes) == 0);
  CHECK(pthread_join(thread, NULL) == 0);

  FILE* maps = fopen("/proc/self/maps", "re");
  char line[400];
  int anonymous = 0;
  CHECK(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL) {
    size_t start, end;
    char access[5];
    int path = 0;
    CHECK(sscanf(line, "%zx-%zx %4s %*s %*s %*s %n", &start, &end, access, &path) == 3);
    if (line[path] != '\0') continue;
    if (end == (size_t)stack || start == (size_t)stack) continue;
    anonymous++;
    if (strcmp(access, "rw-p") == 0) continue;
    fprintf(stderr, "%s", line);
    CHECK(!"the mapping is plain memory");
  }
  CHECK(anonymous > 0);
  fclose(maps);
}

// --- The core file -------------------------------------------------------------------------------

// Holds words[2] MiB, as much of each size, frees the newest words[3] percent, and dies.
static void dump_core(void) {
  static const size_t sizes[] = {100, 500, 3000, 20000, 100000, 1000000};
  static void* objects[200000];
  size_t wanted = strtoul(words[2], NULL, 10) * kMiB;
  size_t count = 0;
  for (size_t held = 0; held < wanted; count++) {
    size_t bytes = sizes[0];
    for (int i = 1; i < 6; i++) {
      if (count % (sizes[i] / 100) == 0) bytes = sizes[i];
    }
    objects[count] = memset(hidden_malloc(bytes), (int)count | 1, bytes);
    held += bytes;
  }
  size_t kept = count - count * strtoul(words[3], NULL, 10) / 100;
  while (count > kept) free(objects[--count]);
  printf("%zu %zu\n", status_bytes("VmRSS:"), charge());
  fflush(stdout);
  raise(SIGSEGV);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"little_objects", little_objects},
      {"small_objects", small_objects},
      {"middle_objects", middle_objects},
      {"large_objects", large_objects},
      {"one_thread_after_the_other", one_thread_after_the_other},
      {"phases", phases},
      {"only_plain_mappings", only_plain_mappings},
      {"dump_core", dump_core},
      {NULL, NULL},
  };
  words = argv;
  return run_case(argc, argv, cases);
}
