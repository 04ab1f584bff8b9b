// A program that is watched through MINITC_STATS_FILE.
#include "check.h"

#include <dirent.h>
#include <time.h>

#include "../../preload/minitc.h"

#pragma weak minitc_stats_write

// Allocates for so many milliseconds, in steps that need the slow path.
static void work(int ms) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do {
    void* blocks[400];
    for (int i = 0; i < 400; i++) CHECK((blocks[i] = malloc(500 + 20 * i)) != NULL);
    for (int i = 0; i < 400; i++) free(blocks[i]);
    free(malloc(1 << 20));
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < ms);
}

static void* worker(void* unused) {
  work(300);
  return unused;
}

// Prints what the call returned: 1, 0, or "no library".
static void on_call(void) {
  static void* kept[3];
  for (int i = 0; i < 3; i++) CHECK((kept[i] = malloc(300 << 10)) != NULL);
  if (minitc_stats_write) {
    printf("%d\n", minitc_stats_write());
  } else {
    puts("no library");
  }
  for (int i = 0; i < 3; i++) free(kept[i]);
}

static void at_work(void) { work(300); }

static void threads(void) {
  pthread_t all[8];
  for (int i = 0; i < 8; i++) CHECK(pthread_create(&all[i], NULL, worker, NULL) == 0);
  for (int i = 0; i < 8; i++) CHECK(pthread_join(all[i], NULL) == 0);
}

static void forks(void) {
  const pid_t child = fork_checked();
  if (child == 0) {
    work(100);
    exit(0);
  }
  CHECK(child_succeeded(child));
  printf("%d %d\n", getpid(), child);
}

static void* writer(void* unused) {
  for (;;) minitc_stats_write();
  return unused;
}

static void exits_among_writers(void) {
  pthread_t all[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&all[i], NULL, writer, NULL) == 0);
  usleep(20000);
  exit(0);
}

// Children may write at once, whatever the parent's threads were at.
static void forks_among_threads(void) {
  pthread_t all[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&all[i], NULL, worker, NULL) == 0);
  for (int i = 0; i < 100; i++) {
    const pid_t child = fork_checked();
    if (child == 0) _exit(minitc_stats_write() == 1 ? 0 : 1);
    CHECK(child_succeeded(child));
  }
  for (int i = 0; i < 4; i++) CHECK(pthread_join(all[i], NULL) == 0);
}

// A program that gives back what it has: its last allocation is long over.
static void only_frees(void) {
  enum { kBlocks = 50000 };
  static void* blocks[kBlocks];
  for (int i = 0; i < kBlocks; i++) CHECK((blocks[i] = malloc(1000)) != NULL);
  CHECK(minitc_stats_write() == 1);
  usleep(100000);
  for (int i = 0; i < kBlocks; i++) free(blocks[i]);
}

// The environment is overwritten, all files are closed, and the folder is another one: a daemon.
static void daemon_like(void) {
  extern char** environ;
  for (char** entry = environ; *entry != NULL; entry++) memset(*entry, 'x', strlen(*entry));
  CHECK(chdir("/") == 0);
  for (int fd = 3; fd < 64; fd++) close(fd);
  const int mine = memfd_create("mine", 0);
  CHECK(mine == 3);
  work(100);
  CHECK(lseek(mine, 0, SEEK_END) == 0);
  DIR* const folder = opendir("/proc/self/fd");
  int files = 0;
  while (readdir(folder) != NULL) files++;
  closedir(folder);
  printf("%d\n", files - 2 - 1);  // less . and .. and the folder itself
}

// By calls that have their own ways into the library.
static void only_callocs(void) {
  void* (*volatile hidden_calloc)(size_t, size_t) = calloc;
  for (int i = 0; i < 20000; i++) CHECK(hidden_calloc(1, 5000) != NULL);
}

static void only_reallocs(void) {
  for (int i = 0; i < 200; i++) {
    void* block = malloc(1);
    for (size_t bytes = 1000; bytes < 1000000; bytes += bytes / 4) {
      CHECK((block = realloc(block, bytes)) != NULL);
    }
  }
}

// The file may not become as long as it would.
static void short_file(void) {
  struct rlimit limit = {10000, 10000};
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  work(300);
}

// errno is not touched, whether a line is written or not.
static void keeps_errno(void) {
  errno = 777;
  work(50);
  CHECK(errno == 777);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"on_call", on_call},
      {"at_work", at_work},
      {"threads", threads},
      {"forks", forks},
      {"only_frees", only_frees},
      {"forks_among_threads", forks_among_threads},
      {"daemon_like", daemon_like},
      {"keeps_errno", keeps_errno},
      {"only_callocs", only_callocs},
      {"only_reallocs", only_reallocs},
      {"short_file", short_file},
      {"exits_among_writers", exits_among_writers},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
