// LDFLAGS: -static
// Runs /bin/true argv[2] times on the library argv[1] and as often without it, in turn, and prints
// what the library adds: wall time and CPU time in microseconds, peak RSS in KiB; then what twenty
// page faults take, in microseconds. Times are lower quartiles, which other load on the machine
// does not move much. Static, because a child's peak RSS counts from its parent's on.
#include "check.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

typedef struct Cost {
  long wall_us;
  long cpu_us;
  long rss_kib;
} Cost;

static long microseconds(struct timeval time) { return time.tv_sec * 1000000 + time.tv_usec; }

static long clock_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static long twenty_faults_us(void) {
  enum { kPage = 4096, kBytes = 20 * kPage };
  volatile char* pages =
      mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  long start = clock_us();
  for (int i = 0; i < kBytes; i += kPage) pages[i] = 1;
  long wall = clock_us() - start;
  CHECK(munmap((void*)pages, kBytes) == 0);
  return wall;
}

static Cost run(char* const* environment) {
  char* argv[] = {(char*)"true", NULL};
  struct rusage usage;
  pid_t child;
  int status;
  long start = clock_us();
  CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, argv, environment) == 0);
  CHECK(wait4(child, &status, 0, &usage) == child && status == 0);
  long wall = clock_us() - start;
  return (Cost){wall, microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss};
}

static int compare(const void* a, const void* b) {
  long first = *(const long*)a;
  long second = *(const long*)b;
  return (first > second) - (first < second);
}

static long lower_quartile(long* values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 4];
}

int main(int argc, char** argv) {
  enum { kMost = 10000 };
  static long values[3][2][kMost], faults_us[kMost];
  CHECK(argc == 3);
  int runs = atoi(argv[2]);
  CHECK(runs >= 10 && runs <= kMost);
  char variable[4096];
  snprintf(variable, sizeof variable, "LD_PRELOAD=%s", argv[1]);
  char* environments[2][2] = {{NULL}, {variable, NULL}};
  for (int i = 0; i < runs; i++) {
    faults_us[i] = twenty_faults_us();
    for (int with = 0; with < 2; with++) {
      Cost cost = run(environments[with]);
      values[0][with][i] = cost.wall_us;
      values[1][with][i] = cost.cpu_us;
      values[2][with][i] = cost.rss_kib;
    }
  }
  for (int kind = 0; kind < 3; kind++) {
    long without = lower_quartile(values[kind][0], runs);
    printf("%ld ", lower_quartile(values[kind][1], runs) - without);
  }
  printf("%ld\n", lower_quartile(faults_us, runs));
  return 0;
}
