// What surrounds a program: its environment, its descriptors, and options that come by them.
#include "check.h"

extern char** environ;

static void cleared(void) {
  CHECK(environ == NULL);
  churn(10);
  CHECK(environ == NULL);
}

static char long_text[100000];
static char* const kOdd[] = {
    "",        "=",       "NO_VALUE", "MINITC_STATS",   "=MINITC_STATS=1", "A=\xff\xfe",
    "A=again", long_text, "MINITC_",  "minitc_stats=1", "XMINITC_STATS=1"};
enum { kOddCount = sizeof kOdd / sizeof kOdd[0] };

static void fill_long_text(void) { memset(long_text, 'x', sizeof long_text - 1); }

// What others see of it, too: the strings are where exec put them.
static void odd_seen(void) {
  churn(10);
  fill_long_text();
  for (int i = 0; i < kOddCount; i++) CHECK(environ[i] != NULL && !strcmp(environ[i], kOdd[i]));
}

// Runs this program again with variables that are none.
static void odd(void) {
  char* environment[kOddCount + 2] = {0};
  char* arguments[] = {"environment", "odd_seen", NULL};
  fill_long_text();
  memcpy(environment, kOdd, sizeof kOdd);
  char preload[4096];
  snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
  environment[kOddCount] = preload;
  execve("/proc/self/exe", arguments, environment);
  CHECK(!"execve");
}

// Nothing but what the program was given is open.
static void descriptors(void) {
  churn(10);
  malloc_trim(0);
  for (int fd = 3; fd < 1024; fd++) CHECK(fcntl(fd, F_GETFD) == -1);
}

// Opens the file argv[2] where stderr was, and goes on; with a third word by a bad free.
static char** words;
static void stderr_is_a_file(void) {
  CHECK(open(words[2], O_RDWR) == STDERR_FILENO);
  churn(10);
  malloc_stats();
  long object[16];
  void* volatile hidden = object + 2;
  if (words[3] != NULL) free(hidden);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"cleared", cleared},
      {"odd", odd},
      {"odd_seen", odd_seen},
      {"descriptors", descriptors},
      {"stderr_is_a_file", stderr_is_a_file},
      {NULL, NULL},
  };
  words = argv;
  return run_case(argc, argv, cases);
}
