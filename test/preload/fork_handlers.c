// LDFLAGS: -L$BUILD/test/preload -l:lib_atfork.so -l:lib_atfork_early.so
// Forks with other libraries' fork handlers in place, with and without other threads. Those of
// lib_atfork are registered in preinit, before anything allocated, or in main, after; those of
// lib_atfork_early in its constructor.
#include "check.h"

extern int register_fork_handlers(void);
extern int fork_handler_calls(void);
extern void allocate_under_lock(void);
extern int forks_at_exit;

static volatile int stop;

static void* churn_until_stop(void* unused) {
  while (!stop) {
    churn(2);
    usleep(500);
  }
  return unused;
}

static void* churn_forever(void* unused) {
  for (;;) churn(1);
  return unused;
}

static void in_preinit(int argc, char** argv, char** environment) {
  (void)environment;
  if (argc > 1 && strstr(argv[1], "before") == argv[1]) register_fork_handlers();
}

__attribute__((section(".preinit_array"), used)) static void (*entry)(int, char**,
                                                                      char**) = in_preinit;

static void fork_often(int forks, int threads) {
  pthread_t thread[8];
  for (int i = 0; i < threads; i++) {
    CHECK(pthread_create(&thread[i], NULL, churn_until_stop, NULL) == 0);
  }
  for (int i = 0; i < forks; i++) {
    int before = fork_handler_calls();
    pid_t child = fork_checked();
    if (child == 0) {
      churn(1);
      _exit(fork_handler_calls() == before + 2 ? 0 : 1);
    }
    CHECK(child_succeeded(child));
    CHECK(fork_handler_calls() == before + 2);
  }
  stop = 1;
  for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  churn(10);
}

static void before_alone(void) { fork_often(50, 0); }

static void before_with_threads(void) { fork_often(200, 8); }

static void after_alone(void) {
  churn(10);
  CHECK(register_fork_handlers() == 0);
  fork_often(50, 0);
}

static void after_with_threads(void) {
  churn(10);
  CHECK(register_fork_handlers() == 0);
  fork_often(200, 8);
}

static void* allocate_until_stop(void* unused) {
  while (!stop) allocate_under_lock();
  return unused;
}

// Fork waits for the lock, and its holder must not have to wait for fork.
static void early_lock(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, allocate_until_stop, NULL) == 0);
  for (int i = 0; i < 300; i++) {
    pid_t child = fork_checked();
    if (child == 0) {
      allocate_under_lock();
      _exit(0);
    }
    CHECK(child_succeeded(child));
  }
  stop = 1;
  CHECK(pthread_join(thread, NULL) == 0);
}

static void do_nothing(void) {}

// glibc's list of handlers becomes longer under a lock of its own, which fork waits for with all of
// the heap's locks held.
static void long_list(void) {
  churn(1);
  size_t live = mallinfo2().uordblks;
  for (int i = 0; i < 500; i++) {
    CHECK(pthread_atfork(do_nothing, do_nothing, do_nothing) == 0);
    CHECK(mallinfo2().uordblks == live);
  }
  churn(1);
  CHECK(mallinfo2().uordblks == live);
  pid_t child = fork_checked();
  if (child == 0) _exit(0);
  CHECK(child_succeeded(child));
}

static void* register_often(void* unused) {
  for (int i = 0; i < 5000; i++) {
    CHECK(pthread_atfork(do_nothing, do_nothing, do_nothing) == 0);
  }
  stop = 1;
  return unused;
}

static void long_list_with_threads(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, register_often, NULL) == 0);
  while (!stop) {
    pid_t child = fork_checked();
    if (child == 0) _exit(0);
    CHECK(child_succeeded(child));
  }
  CHECK(pthread_join(thread, NULL) == 0);
}

// Destructors of libraries run when the preloaded one's have run, and may fork.
static void exit_forks(void) {
  pthread_t thread;
  for (int i = 0; i < 3; i++) {
    CHECK(pthread_create(&thread, NULL, allocate_until_stop, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, churn_forever, NULL) == 0);
  }
  forks_at_exit = 40;
}

static void registers_while_opened(void) {
  alarm(10);
  CHECK(dlopen("lib_registering.so", RTLD_NOW) != NULL);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"before_alone", before_alone},
      {"before_with_threads", before_with_threads},
      {"after_alone", after_alone},
      {"after_with_threads", after_with_threads},
      {"early_lock", early_lock},
      {"long_list", long_list},
      {"long_list_with_threads", long_list_with_threads},
      {"exit_forks", exit_forks},
      {"registers_while_opened", registers_while_opened},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
