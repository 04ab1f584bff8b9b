// fork, vfork, posix_spawn, popen and system, from unusual places and moments.
#include "check.h"

#include <spawn.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

extern char** environ;

static volatile int stop;

static void* churn_until_stop(void* unused) {
  while (!stop) {
    churn(3);
    usleep(300);
  }
  return unused;
}

static pthread_t disturbers[8];

static void start_disturbers(void) {
  for (int i = 0; i < 8; i++) {
    CHECK(pthread_create(&disturbers[i], NULL, churn_until_stop, NULL) == 0);
  }
}

static void stop_disturbers(void) {
  stop = 1;
  for (int i = 0; i < 8; i++) pthread_join(disturbers[i], NULL);
  churn(10);
}

static void fork_and_check(void) {
  pid_t child = fork_checked();
  if (child == 0) {
    churn(2);
    _exit(0);
  }
  CHECK(child_succeeded(child));
}

// Before the program's first allocation.
static void first_act(void) {
  fork_and_check();
  churn(5);
  fork_and_check();
}

extern char __libc_single_threaded __attribute__((weak));

static long faults_of(int who) {
  struct rusage usage;
  CHECK(getrusage(who, &usage) == 0);
  return usage.ru_minflt;
}

// What a shell does all day: of the allocator's pages neither side has to copy any.
static void alone_copies_little(void) {
  enum { kForks = 50 };
  if (&__libc_single_threaded == NULL || getenv("TEST_RUNNER") != NULL) {
    skip("this libc does not say whether a process has one thread, or it is emulated");
  }
  churn(5);
  long parent = 0;
  long children = 0;
  for (int i = -5; i < kForks; i++) {
    if (i == 0) {
      parent = faults_of(RUSAGE_SELF);
      children = faults_of(RUSAGE_CHILDREN);
    }
    pid_t child = fork_checked();
    if (child == 0) _exit(0);
    CHECK(child_succeeded(child));
  }
  // 2 and 15 without a library; 12 and 14 more if all locks are taken.
  CHECK(faults_of(RUSAGE_SELF) - parent <= kForks * 8);
  CHECK(faults_of(RUSAGE_CHILDREN) - children <= kForks * 23);
}

static void* fork_in_fresh_thread(void* unused) {
  fork_and_check();
  return unused;
}

static void from_fresh_threads(void) {
  start_disturbers();
  for (int i = 0; i < 200; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fork_in_fresh_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  stop_disturbers();
}

static void* fork_repeatedly(void* unused) {
  for (int i = 0; i < 40; i++) {
    churn(1);
    fork_and_check();
  }
  return unused;
}

static void many_threads_fork(void) {
  pthread_t threads[16];
  for (int i = 0; i < 16; i++) CHECK(pthread_create(&threads[i], NULL, fork_repeatedly, NULL) == 0);
  for (int i = 0; i < 16; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

// The child inherits the other threads' objects, though not the threads: it may free them.
static void* shared_objects[1000];

static void* allocate_shared(void* unused) {
  for (int i = 0; i < 1000; i++) {
    shared_objects[i] = malloc((size_t)i * 3 + 8);
    fill(shared_objects[i], 8, (unsigned)i);
  }
  pause();
  return unused;
}

static void child_frees_for_all(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, allocate_shared, NULL) == 0);
  while (__atomic_load_n(&shared_objects[999], __ATOMIC_ACQUIRE) == NULL) usleep(100);
  usleep(1000);
  for (int round = 0; round < 20; round++) {
    pid_t child = fork_checked();
    if (child == 0) {
      for (int i = 0; i < 1000; i++) {
        CHECK(is_filled(shared_objects[i], 8, (unsigned)i));
        free(shared_objects[i]);
      }
      churn(5);
      exit(0);
    }
    CHECK(child_succeeded(child));
  }
  for (int i = 0; i < 1000; i++) CHECK(is_filled(shared_objects[i], 8, (unsigned)i));
}

// A fork that a timer puts between any two instructions of an allocation.
static volatile long forks_in_handler;

static void fork_in_handler(int number) {
  int error = errno;
  (void)number;
  pid_t child = fork();
  if (child == 0) _exit(0);
  CHECK(child > 0 && waitpid(child, NULL, 0) == child);
  forks_in_handler++;
  errno = error;
}

static void from_handler_during(void (*work)(void)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = fork_in_handler;
  CHECK(sigaction(SIGPROF, &action, NULL) == 0);
  struct itimerval often = {{0, 1000}, {0, 1000}};
  CHECK(setitimer(ITIMER_PROF, &often, NULL) == 0);
  // On a busy machine the timer, which counts the processor's time, fires seldom.
  for (time_t end = time(NULL) + 2; time(NULL) <= end || forks_in_handler <= 20;) work();
  struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_PROF, &never, NULL);
}

static void allocate_fast(void) { churn(50); }

// Enough objects to keep the slow paths, and their locks, busy.
static void allocate_slowly(void) {
  enum { kObjects = 5000 };
  static void* objects[kObjects];
  for (int i = 0; i < kObjects; i++) objects[i] = malloc(i % 50 == 0 ? 300000 : 4000);
  for (int i = 0; i < kObjects; i++) free(objects[i]);
}

static void from_handler_in_fast_path(void) { from_handler_during(allocate_fast); }

static void from_handler_in_slow_path(void) { from_handler_during(allocate_slowly); }

// The child of vfork shares the parent's memory; what it allocates the parent sees as allocated.
static void vfork_child_allocates(void) {
  start_disturbers();
  for (int i = 0; i < 300; i++) {
    static void* volatile from_child;
    from_child = NULL;
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
      void* volatile scratch = malloc(1024);
      free(scratch);
      from_child = malloc(2000);
      _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(from_child != NULL);
    memset(from_child, 1, 2000);
    free(from_child);
    churn(1);
  }
  stop_disturbers();
}

static void spawn(void) {
  char* argv[] = {(char*)"true", NULL};
  start_disturbers();
  for (int i = 0; i < 60; i++) {
    pid_t child;
    int status;
    CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, argv, environ) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
  stop_disturbers();
}

static void open_pipe(void) {
  start_disturbers();
  for (int i = 0; i < 40; i++) {
    char text[32] = "";
    FILE* pipe = popen("echo from the shell", "r");
    CHECK(pipe != NULL);
    CHECK(fgets(text, sizeof text, pipe) != NULL && strcmp(text, "from the shell\n") == 0);
    CHECK(pclose(pipe) == 0);
  }
  stop_disturbers();
}

static void run_shell(void) {
  start_disturbers();
  for (int i = 0; i < 40; i++) CHECK(WEXITSTATUS(system("exit 7")) == 7);
  stop_disturbers();
}

// One thread flushes all streams, one allocates while it has a stream locked: glibc's fork takes
// the lock of the list of streams, and must not wait for it with the allocator's locks in hand.
static ssize_t read_lines(void* unused, char* buffer, size_t bytes) {
  static size_t position;
  (void)unused;
  for (size_t i = 0; i < bytes; i++) buffer[i] = ++position % 400000 == 0 ? '\n' : 'x';
  return (ssize_t)bytes;
}

static void* get_lines(void* unused) {
  FILE* stream = fopencookie(NULL, "r", (cookie_io_functions_t){.read = read_lines});
  while (!stop) {
    char* line = NULL;
    size_t bytes = 0;
    CHECK(getline(&line, &bytes, stream) > 0);
    free(line);
  }
  fclose(stream);
  return unused;
}

static void* flush_streams(void* unused) {
  while (!stop) fflush(NULL);
  return unused;
}

static void while_streams_are_flushed(void) {
  pthread_t getter;
  pthread_t flusher;
  CHECK(pthread_create(&getter, NULL, get_lines, NULL) == 0);
  CHECK(pthread_create(&flusher, NULL, flush_streams, NULL) == 0);
  for (time_t end = time(NULL) + 2; time(NULL) <= end;) {
    pid_t child = fork_checked();
    if (child == 0) _exit(0);
    CHECK(child_succeeded(child));
  }
  stop = 1;
  pthread_join(getter, NULL);
  pthread_join(flusher, NULL);
}

// What another thread was giving back to the system at the moment of the fork is the child's.
static void* free_and_trim(void* unused) {
  while (!stop) {
    void* volatile object = calloc(1, 32 << 20);
    memset(object, 1, 32 << 20);
    free(object);
    malloc_trim(0);
  }
  return unused;
}

static void while_memory_is_returned(void) {
  pthread_t trimmer;
  CHECK(pthread_create(&trimmer, NULL, free_and_trim, NULL) == 0);
  for (int i = 0; i < 100; i++) {
    usleep(700);
    pid_t child = fork_checked();
    if (child == 0) {
      malloc_trim(0);  // then all that is free is returned, and nothing under way
      _exit(mallinfo2().keepcost == 0 ? 0 : 1);
    }
    CHECK(child_succeeded(child));
  }
  stop = 1;
  pthread_join(trimmer, NULL);
}

// daemon() in a program with threads: the child goes on alone, and so do its own children.
static void child_lives_on(void) {
  start_disturbers();
  pid_t child = fork_checked();
  if (child == 0) {
    stop = 0;
    start_disturbers();
    for (int i = 0; i < 20; i++) fork_and_check();
    stop_disturbers();
    exit(0);
  }
  CHECK(child_succeeded(child));
  stop_disturbers();
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"first_act", first_act},
      {"alone_copies_little", alone_copies_little},
      {"from_fresh_threads", from_fresh_threads},
      {"many_threads_fork", many_threads_fork},
      {"child_frees_for_all", child_frees_for_all},
      {"from_handler_in_fast_path", from_handler_in_fast_path},
      {"from_handler_in_slow_path", from_handler_in_slow_path},
      {"vfork_child_allocates", vfork_child_allocates},
      {"spawn", spawn},
      {"open_pipe", open_pipe},
      {"run_shell", run_shell},
      {"while_streams_are_flushed", while_streams_are_flushed},
      {"while_memory_is_returned", while_memory_is_returned},
      {"child_lives_on", child_lives_on},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
