// Shared by the programs of this folder. A program with cases holds a table of them and runs the
// one that argv[1] names; a failed check says so on stderr and ends the process with status 1.
#ifndef MINITC_TEST_PRELOAD_CHECK_H_
#define MINITC_TEST_PRELOAD_CHECK_H_

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../preload/glibc_malloc.h"

#if !defined(__GLIBC__)
// The library alone has these: the loader is to look for them, not the linker.
#pragma weak mallinfo
#pragma weak mallinfo2
#pragma weak malloc_info
#pragma weak malloc_stats
#pragma weak malloc_trim
#pragma weak mallopt
#pragma weak pvalloc
#endif

enum { kSkip = 77 };  // exit status: the case says nothing here

typedef struct TestCase {
  const char* name;
  void (*run)(void);
} TestCase;

static inline void check_failed(const char* file, int line, const char* condition) {
  char text[400];
  int length = snprintf(text, sizeof text, "%s:%d: %s (errno %d)\n", file, line, condition, errno);
  if (write(STDERR_FILENO, text, (size_t)length) < 0) _exit(2);
  _exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

static inline void skip(const char* reason) {
  fprintf(stderr, "%s\n", reason);
  exit(kSkip);
}

// `cases` ends with a null name.
static inline int run_case(int argc, char** argv, const TestCase* cases) {
  for (; argc > 1 && cases->name != NULL; cases++) {
    if (strcmp(argv[1], cases->name) == 0) {
      cases->run();
      return 0;
    }
  }
  fprintf(stderr, "no such case\n");
  return 2;
}

// No more address space than so many bytes. An emulator may accept that and not heed it.
static inline void limit_address_space(size_t bytes) {
  struct rlimit limit = {bytes, bytes};
  CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
  void* beyond = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (beyond != MAP_FAILED) skip("limits on address space are not kept here");
}

// Resident set, without an allocation.
static inline long resident_kib(void) {
  if (getenv("TEST_RUNNER") != NULL) skip("the resident set is the emulator's");
  char text[128] = "";
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  ssize_t length = read(fd, text, sizeof text - 1);
  char* second = strchr(text, ' ');
  close(fd);
  CHECK(length > 0 && second != NULL);
  return strtol(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

static inline unsigned char pattern_byte(size_t index, unsigned seed) {
  return (unsigned char)(index * 131 + index / 256 * 17 + seed * 29 + 1);
}

static inline void fill(void* object, size_t bytes, unsigned seed) {
  unsigned char* byte = (unsigned char*)object;
  for (size_t i = 0; i < bytes; i++) byte[i] = pattern_byte(i, seed);
}

// volatile: also used on freed objects, whose contents the compiler believes to be undefined.
static inline int is_filled(const void* object, size_t bytes, unsigned seed) {
  const volatile unsigned char* byte = (const volatile unsigned char*)object;
  for (size_t i = 0; i < bytes; i++) {
    if (byte[i] != pattern_byte(i, seed)) return 0;
  }
  return 1;
}

static inline int is_zero(const void* object, size_t bytes) {
  const unsigned char* byte = (const unsigned char*)object;
  return bytes == 0 || (byte[0] == 0 && memcmp(byte, byte + 1, bytes - 1) == 0);
}

// A request that lands in the next size class after `usable` bytes. glibc has 16,384 classes up to
// the limit; the steps above 2 KiB keep such an allocator's run short and skip none of ours.
static inline size_t next_class(size_t usable) {
  void* object = malloc(usable + 1);
  size_t next = malloc_usable_size(object);
  free(object);
  return next;
}

static inline size_t next_step(size_t usable) {
  size_t next = next_class(usable);
  return next > 2048 && next - usable <= 16 ? next_class(usable + usable / 16) : next;
}

static inline size_t first_class(void) { return next_class(0); }

// Allocates and frees objects of many sizes: enough to reach every tier, not only the thread cache.
static inline void churn(int rounds) {
  static const size_t sizes[] = {1, 24, 100, 700, 3000, 20000, 100000, 300000};
  enum { kSizes = sizeof sizes / sizeof sizes[0] };
  for (int round = 0; round < rounds; round++) {
    unsigned char* volatile objects[kSizes];
    for (int i = 0; i < kSizes; i++) {
      objects[i] = (unsigned char*)malloc(sizes[i]);
      CHECK(objects[i] != NULL);
      objects[i][0] = objects[i][sizes[i] - 1] = (unsigned char)i;
    }
    for (int i = 0; i < kSizes; i++) {
      CHECK(objects[i][0] == i && objects[i][sizes[i] - 1] == i);
      free(objects[i]);
    }
  }
}

// fork, for a child that does not hang for ever: SIGALRM ends it.
static inline pid_t fork_checked(void) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) alarm(10);
  return child;
}

// Waits for `child`; true when it ended with status 0.
static inline int child_succeeded(pid_t child) {
  int status = -1;
  pid_t done;
  do {
    done = waitpid(child, &status, 0);
  } while (done < 0 && errno == EINTR);
  if (done != child || status != 0) fprintf(stderr, "child's wait status: %#x\n", status);
  return done == child && status == 0;
}

#endif  // MINITC_TEST_PRELOAD_CHECK_H_
