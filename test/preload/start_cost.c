// LDFLAGS: -static
// Runs /bin/true argv[2] times on the library argv[1] and as often without it, in turn, and prints
// what the library adds: wall time and CPU time in microseconds, peak RSS in KiB. Times are lower
// quartiles, which other load on the machine does not move much. Static, because a child's peak RSS
// counts from its parent's on.
#include "check.h"

#include <spawn.h>
#include <sys/resource.h>
#include <time.h>

typedef struct Cost {
  long wall_us;
  long cpu_us;
  long rss_kib;
} Cost;

static long microseconds(struct timeval time) { return time.tv_sec * 1000000 + time.tv_usec; }

static Cost run(char* const* environment) {
  char* argv[] = {(char*)"true", NULL};
  struct timespec start;
  struct timespec end;
  struct rusage usage;
  pid_t child;
  int status;
  clock_gettime(CLOCK_MONOTONIC, &start);
  CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, argv, environment) == 0);
  CHECK(wait4(child, &status, 0, &usage) == child && status == 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  long wall = (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
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
  static long values[3][2][kMost];
  CHECK(argc == 3);
  int runs = atoi(argv[2]);
  CHECK(runs >= 10 && runs <= kMost);
  char variable[4096];
  snprintf(variable, sizeof variable, "LD_PRELOAD=%s", argv[1]);
  char* environments[2][2] = {{NULL}, {variable, NULL}};
  for (int i = 0; i < runs; i++) {
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
  printf("\n");
  return 0;
}
