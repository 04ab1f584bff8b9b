// Runs a program and writes what it cost as one line of JSON.
//
//   measure FILE PROGRAM [ARGUMENT...]
//
// A process that is started begins with the peak RSS of the one that started it: Linux keeps the
// larger of both. So this program is small, is linked statically, and shares its memory with the
// child until the child is another program (vfork). The child's environment is this one's; being
// static, this program does not notice a library in LD_PRELOAD.
//
// Exit status: the program's, or 128 + N when signal N ended it; 127 when it can't be started; 125
// when FILE can't be written. The figures are those of the program and of all its children that it
// has waited for; peak_kib is that of the largest of them.

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds_of(struct timeval time) {
  return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: measure FILE PROGRAM [ARGUMENT...]\n");
    return 125;
  }
  const double begin = now();
  // Shared with the child.
  volatile int error = 0;
  const pid_t child = vfork();
  if (child == 0) {
    execvp(argv[2], argv + 2);
    error = errno;
    _exit(127);
  }
  if (child < 0) {
    error = errno;
  }
  int status = 0;
  struct rusage usage;
  while (child > 0 && wait4(child, &status, 0, &usage) < 0) {
    if (errno != EINTR) {
      error = errno;
      break;
    }
  }
  if (error != 0) {
    fprintf(stderr, "measure: %s: %s\n", argv[2], strerror(error));
    return 127;
  }
  const double wall = now() - begin;
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

  FILE* out = fopen(argv[1], "we");
  if (out == NULL ||
      fprintf(out,
              "{\"status\": %d, \"wall_s\": %.6f, \"user_s\": %.6f, \"system_s\": %.6f, "
              "\"peak_kib\": %ld, \"minor_faults\": %ld, \"major_faults\": %ld}\n",
              code, wall, seconds_of(usage.ru_utime), seconds_of(usage.ru_stime), usage.ru_maxrss,
              usage.ru_minflt, usage.ru_majflt) < 0 ||
      fclose(out) != 0) {
    fprintf(stderr, "measure: %s: %s\n", argv[1], strerror(errno));
    return 125;
  }
  return code;
}
