// System calls that are forbidden or fail after the start: sandboxes do this to programs. The work
// itself checks patterns, zeroes and errno.
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static const int kUntouched = 777;

static void install(struct sock_filter* filter, unsigned length) {
  struct sock_fprog program = {(unsigned short)length, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
    skip("no seccomp filters here");
  }
}

// From now on `number` fails with `error`.
static void make_fail(int number, int error) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  install(filter, sizeof filter / sizeof filter[0]);
}

// From now on any other system call than these kills the process, in every thread. If `refusal` is
// not 0, mremap and madvise fail with it.
static void sandbox(const unsigned* allowed, unsigned count, int refusal) {
  struct sock_filter filter[32] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  unsigned length = 1;
  CHECK(2 * count + 8 < sizeof filter / sizeof filter[0]);
  for (unsigned i = 0; i < count; i++) {
    filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  const struct sock_filter end[] = {
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
      BPF_STMT(BPF_RET | BPF_K,
               refusal != 0 ? SECCOMP_RET_ERRNO | (unsigned)refusal : SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  memcpy(filter + length, end, sizeof end);
  install(filter, length + sizeof end / sizeof end[0]);
}

// What libc needs to say that a pointer is wrong, and to abort.
static void wrong_free(void) {
  static const unsigned allowed[] = {SYS_mmap,       SYS_munmap,        SYS_futex,  SYS_write,
                                     SYS_exit_group, SYS_gettid,        SYS_getpid, SYS_tgkill,
                                     SYS_tkill,      SYS_rt_sigprocmask};
  char* volatile object = malloc(300000);
  free(malloc(1));
  sandbox(allowed, sizeof allowed / sizeof allowed[0], 0);
  free(object + 16);
  _exit(0);
}

static void allow_only_memory_calls(void) {
  static const unsigned allowed[] = {SYS_mmap, SYS_munmap, SYS_futex, SYS_write, SYS_exit_group};
  sandbox(allowed, sizeof allowed / sizeof allowed[0], 0);
}

// Random allocations, resizes and frees of all sizes up to `largest`.
static void work(int rounds, size_t largest) {
  enum { kObjects = 64 };
  static unsigned char* objects[kObjects];
  static size_t sizes[kObjects];
  static unsigned long state = 99;
  for (int round = 0; round < rounds; round++) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    unsigned i = (unsigned)(state >> 40) % kObjects;
    size_t size = (state >> 20) % (round % 16 == 0 ? largest : 3000) + 1;
    size_t checked = sizes[i] < 4096 ? sizes[i] : 4096;
    if (objects[i] != NULL) {
      CHECK(is_filled(objects[i], checked, i));
      CHECK(objects[i][sizes[i] - 1] == (unsigned char)i || sizes[i] <= 4096);
    }
    errno = kUntouched;
    if (round % 3 == 0) {
      unsigned char* moved = realloc(objects[i], size);
      CHECK(moved != NULL && errno == kUntouched);
      if (objects[i] != NULL) CHECK(is_filled(moved, checked < size ? checked : size, i));
      objects[i] = moved;
    } else {
      free(objects[i]);
      CHECK(errno == kUntouched);
      objects[i] = round % 3 == 1 ? malloc(size) : calloc(1, size);
      CHECK(objects[i] != NULL && errno == kUntouched);
      if (round % 3 == 2) CHECK(is_zero(objects[i], size));
    }
    sizes[i] = size;
    objects[i][size - 1] = (unsigned char)i;
    fill(objects[i], size < 4096 ? size : 4096, i);
  }
  for (int i = 0; i < kObjects; i++) {
    errno = kUntouched;
    free(objects[i]);
    CHECK(errno == kUntouched);
    objects[i] = NULL;
    sizes[i] = 0;
  }
}

static void only_memory_calls(void) {
  churn(1);
  allow_only_memory_calls();
  work(100000, 1 << 20);
  _exit(0);
}

// What the strictest sandboxes leave to a worker. 10^6 random operations, each object marked at
// both ends; none of ours may be killed, and what is refused must not be missed.
static void strict_sandbox(int refusal) {
  static const unsigned allowed[] = {SYS_mmap, SYS_munmap, SYS_brk,  SYS_futex,
                                     SYS_read, SYS_write,  SYS_exit, SYS_exit_group};
  enum { kObjects = 512 };
  static unsigned char* objects[kObjects];
  static size_t sizes[kObjects];
  unsigned long state = 7;
  churn(1);
  sandbox(allowed, sizeof allowed / sizeof allowed[0], refusal);
  for (int round = 0; round < 1000000; round++) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    unsigned i = (unsigned)(state >> 40) % kObjects;
    unsigned char mark = (unsigned char)i;
    size_t size = (state >> 20) % (round % 1000 == 0 ? 4 << 20 : round % 50 == 0 ? 60000 : 500) + 1;
    if (objects[i] != NULL) CHECK(objects[i][0] == mark && objects[i][sizes[i] - 1] == mark);
    if (round % 4 == 0 && objects[i] != NULL) {
      objects[i] = realloc(objects[i], size);
      CHECK(objects[i] != NULL && objects[i][0] == mark);
    } else {
      free(objects[i]);
      objects[i] = malloc(size);
      CHECK(objects[i] != NULL);
    }
    sizes[i] = size;
    objects[i][0] = objects[i][size - 1] = mark;
  }
  malloc_trim(0);
  _exit(0);
}

static void strict_sandbox_enosys(void) { strict_sandbox(ENOSYS); }

static void strict_sandbox_eperm(void) { strict_sandbox(EPERM); }

static void* churn_between(void* gate) {
  pthread_barrier_wait(gate);  // born: the calls that glibc makes for that are done
  pthread_barrier_wait(gate);  // the filter is in place
  churn(3000);
  pthread_barrier_wait(gate);
  // The thread's end would make other calls than the allowed ones: main is the one that ends it.
  pthread_barrier_wait(gate);
  return NULL;
}

static void only_memory_calls_in_threads(void) {
  enum { kThreads = 4 };
  pthread_barrier_t gate;
  pthread_t thread;
  pthread_barrier_init(&gate, NULL, kThreads + 1);
  churn(1);
  for (int i = 0; i < kThreads; i++) {
    CHECK(pthread_create(&thread, NULL, churn_between, &gate) == 0);
  }
  pthread_barrier_wait(&gate);
  allow_only_memory_calls();
  pthread_barrier_wait(&gate);
  pthread_barrier_wait(&gate);
  _exit(0);
}

static void after_failing(int number, int error) {
  make_fail(number, error);
  work(20000, 2 << 20);
  malloc_trim(0);
  work(2000, 20 << 20);
}

static void madvise_eperm(void) { after_failing(SYS_madvise, EPERM); }

static void madvise_enosys(void) { after_failing(SYS_madvise, ENOSYS); }

static void madvise_einval(void) { after_failing(SYS_madvise, EINVAL); }

static void madvise_enomem(void) { after_failing(SYS_madvise, ENOMEM); }

static void madvise_fails_from_the_start(void) {
  // exec keeps the filter: the library's first call sees it too.
  char self[400];
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  CHECK(length > 0);
  self[length] = '\0';
  make_fail(SYS_madvise, ENOSYS);
  execl(self, self, "work_without_filter", NULL);
  CHECK(!"execl");
}

static void work_without_filter(void) { work(20000, 2 << 20); }

static void munmap_enomem(void) { after_failing(SYS_munmap, ENOMEM); }

static void mremap_enomem(void) { after_failing(SYS_mremap, ENOMEM); }

static void mremap_enosys(void) { after_failing(SYS_mremap, ENOSYS); }

// No more memory: NULL and ENOMEM, nothing lost, and what is freed can be had again.
static void mmap_enomem(void) {
  enum { kObjects = 100000 };
  static void* objects[kObjects];
  static const size_t sizes[] = {300000, 5000, 64};
  churn(10);
  make_fail(SYS_mmap, ENOMEM);
  for (int s = 0; s < 3; s++) {
    int count = 0;
    size_t size = sizes[s];
    for (; count < kObjects; count++) {
      errno = kUntouched;
      objects[count] = malloc(size);
      if (objects[count] == NULL) break;
      CHECK(errno == kUntouched);
      fill(objects[count], 64, (unsigned)count);
    }
    if (size > 64) CHECK(count < kObjects && errno == ENOMEM);
    CHECK(calloc(3, 100 << 20) == NULL && errno == ENOMEM);
    CHECK(memalign(1 << 20, 100 << 20) == NULL && errno == ENOMEM);
    if (count > 0) {
      CHECK(realloc(objects[0], 100 << 20) == NULL && errno == ENOMEM);
    }
    for (int i = 0; i < count; i++) {
      CHECK(is_filled(objects[i], 64, (unsigned)i));
      errno = kUntouched;
      free(objects[i]);
      CHECK(errno == kUntouched);
    }
    // As many as before fit again.
    int again = 0;
    while (again < count && (objects[again] = malloc(size)) != NULL) again++;
    CHECK(again >= count - count / 8 - 1);
    for (int i = 0; i < again; i++) free(objects[i]);
  }
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"only_memory_calls", only_memory_calls},
      {"only_memory_calls_in_threads", only_memory_calls_in_threads},
      {"strict_sandbox_enosys", strict_sandbox_enosys},
      {"strict_sandbox_eperm", strict_sandbox_eperm},
      {"madvise_eperm", madvise_eperm},
      {"madvise_enosys", madvise_enosys},
      {"madvise_einval", madvise_einval},
      {"madvise_enomem", madvise_enomem},
      {"madvise_fails_from_the_start", madvise_fails_from_the_start},
      {"work_without_filter", work_without_filter},
      {"wrong_free", wrong_free},
      {"munmap_enomem", munmap_enomem},
      {"mremap_enomem", mremap_enomem},
      {"mremap_enosys", mremap_enosys},
      {"mmap_enomem", mmap_enomem},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
