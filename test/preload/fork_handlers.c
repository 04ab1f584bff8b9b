// LDFLAGS: -L$BUILD/test/preload -l:lib_atfork.so
// Forks with another library's fork handlers (lib_atfork) in place, with and without other threads.
// They are registered in preinit, before anything allocated, or in main, after.
#include "check.h"

extern int register_fork_handlers(void);
extern int fork_handler_calls(void);

static volatile int stop;

static void* churn_until_stop(void* unused) {
  while (!stop) {
    churn(2);
    usleep(500);
  }
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

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"before_alone", before_alone},
      {"before_with_threads", before_with_threads},
      {"after_alone", after_alone},
      {"after_with_threads", after_with_threads},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
