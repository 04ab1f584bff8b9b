#include "core/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>

#ifndef MADV_POPULATE_READ  // Linux 5.14
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_FIXED_NOREPLACE  // Linux 4.17; an older kernel takes the address for a hint
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace minitc {
namespace {

// A system call's result: the kernel returns -errno, which is never a valid address or count.
bool failed(long result) { return result < 0 && result >= -4095; }

// NOLINTBEGIN(hicpp-no-assembler)
#if defined(__x86_64__)
long system_call(long number, long a, long b, long c, long d = 0, long e = 0, long f = 0) {
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
// The processor's own count: asking the kernel would be a system call where there is no vDSO, and
// libc's function may be another preload's, which allocates. It runs at 1 to 4 GHz.
std::uint32_t now_ms() { return static_cast<std::uint32_t>(__builtin_ia32_rdtsc() >> 21); }
#elif defined(__aarch64__)
long system_call(long number, long a, long b, long c, long d = 0, long e = 0, long f = 0) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc #0"
               : "+r"(x0)
               : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
               : "memory");
  return x0;
}
std::uint32_t now_ms() {
  std::uint64_t ticks;
  std::uint64_t per_second;
  asm volatile("mrs %0, cntvct_el0\n\tmrs %1, cntfrq_el0" : "=r"(ticks), "=r"(per_second));
  return static_cast<std::uint32_t>(ticks / (per_second / 1000 + 1));
}
#else
#error "system_call() is written for x86-64 and AArch64"
#endif
// NOLINTEND(hicpp-no-assembler)

long as_long(const void* ptr) { return reinterpret_cast<long>(ptr); }

void* map(void* at, std::size_t bytes, int flags) {
  const long start =
      system_call(SYS_mmap, as_long(at), static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  return failed(start) ? nullptr : reinterpret_cast<void*>(start);
}

bool unmap(void* start, std::size_t bytes) {
  return !failed(system_call(SYS_munmap, as_long(start), static_cast<long>(bytes), 0));
}

bool drop(void* start, std::size_t bytes) {
  return !failed(system_call(SYS_madvise, as_long(start), static_cast<long>(bytes), MADV_DONTNEED));
}

// Some emulators accept MADV_DONTNEED and do nothing: always, or for all that is not whole pages of
// a machine whose pages are longer than they say. So a caller looks at its own pages, which are
// free and may be written, until the least that may be returned has read as zeros. That is tried
// first, and dropped again with the rest: a look may bring a huge page.
bool decommit(void* start, std::size_t bytes) {
  static std::atomic<bool> trusted{false};

  const auto reads_as_zero = [start](std::size_t length) {
    volatile char* const probe = static_cast<char*>(start);
    *probe = 1;
    return drop(start, length) && *probe == 0;
  };
  if (!trusted.load(std::memory_order_relaxed)) {
    const std::size_t least = std::max(kPageBytes, getauxval(AT_PAGESZ));
    if (!reads_as_zero(std::min(bytes, least))) return reads_as_zero(bytes);
    trusted.store(true, std::memory_order_relaxed);
  }
  return drop(start, bytes);
}

bool offer(void* start, std::size_t bytes) {
  return !failed(system_call(SYS_madvise, as_long(start), static_cast<long>(bytes), MADV_FREE));
}

void want_huge_pages(void* start, std::size_t bytes, bool wanted) {
  system_call(SYS_madvise, as_long(start), static_cast<long>(bytes),
              wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

// Who refuses it once, an older kernel or a sandbox, is not asked again.
void populate(void* start, std::size_t bytes) {
  static std::atomic<bool> refused{false};

  if (refused.load(std::memory_order_relaxed)) return;
  const long result =
      system_call(SYS_madvise, as_long(start), static_cast<long>(bytes), MADV_POPULATE_WRITE);
  if (failed(result)) refused.store(true, std::memory_order_relaxed);
}

// It has memory then, if only to be read.
bool can_read(const void* page) {
  const std::size_t bytes = getauxval(AT_PAGESZ);
  const auto start = align_down(reinterpret_cast<std::uintptr_t>(page), bytes);
  return !failed(system_call(SYS_madvise, static_cast<long>(start), static_cast<long>(bytes),
                             MADV_POPULATE_READ));
}

// The mask of any machine so far is shorter; the kernel refuses one that is shorter than its own.
unsigned processors() {
  std::uint64_t mask[64] = {};
  const long bytes = system_call(SYS_sched_getaffinity, 0, sizeof(mask), as_long(mask));
  if (failed(bytes)) return UINT_MAX;
  int count = 0;
  for (const std::uint64_t word : mask) count += std::popcount(word);
  return static_cast<unsigned>(count);
}

// Maps zero pages where nothing is mapped; false if something is, or another thread was faster.
bool map_hole(void* start, std::size_t bytes) {
  void* const mapped = map(start, bytes, MAP_FIXED_NOREPLACE);
  if (mapped == start) return true;
  if (mapped != nullptr) unmap(mapped, bytes);
  return false;
}

// The target becomes one mapping with the pages, so that it can be moved again. The kernel refuses
// a range of several mappings with EFAULT, until Linux 6.16 after it has unmapped the target, later
// only if the length changes. If the target can't be mapped again, it may be as it was, or another
// thread's by now: it is given up.
Move move(void* from, std::size_t bytes, void* to, std::size_t to_bytes) {
  const long result =
      system_call(SYS_mremap, as_long(from), static_cast<long>(bytes), static_cast<long>(to_bytes),
                  MREMAP_MAYMOVE | MREMAP_FIXED, as_long(to));
  if (!failed(result)) return map_hole(from, bytes) ? Move::kDone : Move::kSourceLost;
  if (result != -EFAULT && result != -ENOMEM && result != -EAGAIN) return Move::kRefused;
  return map_hole(to, to_bytes) ? Move::kRefused : Move::kTargetLost;
}

bool renew(void* start, std::size_t bytes) { return map(start, bytes, MAP_FIXED) == start; }

// Whether the kernel lets a process have so much: by default not what is more than the machine has,
// but of a mapping without a reservation nobody asks that.
bool may_have(std::size_t bytes) {
  const long start = system_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return !failed(start) && unmap(reinterpret_cast<void*>(start), bytes);
}

}  // namespace

// The kernel places new mappings below the last, so that after the first they come aligned by
// themselves; one that does not is taken again with room to cut.
void* reserve_from_kernel(std::size_t bytes) {
  constexpr std::size_t kLeastAsked = std::size_t{1} << 30;
  if (bytes >= kLeastAsked && !may_have(bytes)) return nullptr;
  char* start = static_cast<char*>(map(nullptr, bytes, 0));
  if (start == nullptr) return nullptr;
  const std::size_t skew = reinterpret_cast<std::uintptr_t>(start) & (kPageBytes - 1);
  if (skew == 0) return start;
  unmap(start, bytes);
  start = static_cast<char*>(map(nullptr, bytes + kPageBytes, 0));
  if (start == nullptr) return nullptr;
  const std::size_t head = align_up(reinterpret_cast<std::uintptr_t>(start), kPageBytes) -
                           reinterpret_cast<std::uintptr_t>(start);
  if (head != 0) unmap(start, head);
  unmap(start + head + bytes, kPageBytes - head);
  return start + head;
}

Os kernel_os() {
  return Os{.reserve = reserve_from_kernel,
            .release = unmap,
            .decommit = decommit,
            .offer = offer,
            .want_huge_pages = want_huge_pages,
            .populate = populate,
            .can_read = can_read,
            .move = move,
            .renew = renew,
            .now_ms = now_ms,
            .processors = processors,
            .page_bytes = getauxval(AT_PAGESZ)};
}

std::ptrdiff_t read_file(const char* path, char* buffer, std::size_t bytes) {
  const long fd = system_call(SYS_openat, AT_FDCWD, as_long(path), O_RDONLY | O_CLOEXEC);
  if (failed(fd)) return -1;
  std::size_t length = 0;
  long got;
  do {
    got = system_call(SYS_read, fd, as_long(buffer + length), static_cast<long>(bytes - length));
    if (!failed(got)) length += static_cast<std::size_t>(got);
  } while (got == -EINTR || (got > 0 && length < bytes));
  system_call(SYS_close, fd, 0, 0);
  return failed(got) ? -1 : static_cast<std::ptrdiff_t>(length);
}

namespace {

// As write(2), but no signal comes of it: where a file may not become longer, or nobody reads, the
// program would end for something that it knows nothing of.
long write_quietly(long fd, const char* data, std::size_t bytes) {
  const std::uint64_t both = std::uint64_t{1} << (SIGXFSZ - 1) | std::uint64_t{1} << (SIGPIPE - 1);
  std::uint64_t mask = 0;
  std::uint64_t pending = 0;
  const bool masked = !failed(
      system_call(SYS_rt_sigprocmask, SIG_BLOCK, as_long(&both), as_long(&mask), sizeof(mask)));
  // One that was not blocked before is not pending; and a sandbox may not know the call.
  if ((mask & both) != 0) system_call(SYS_rt_sigpending, as_long(&pending), sizeof(pending), 0);
  long written;
  do {
    written = system_call(SYS_write, fd, as_long(data), static_cast<long>(bytes));
  } while (written == -EINTR);
  if (masked && (written == -EFBIG || written == -EPIPE)) {
    const std::uint64_t ours = both & ~pending;
    const timespec at_once = {};
    system_call(SYS_rt_sigtimedwait, as_long(&ours), 0, as_long(&at_once), sizeof(ours));
  }
  if (masked) system_call(SYS_rt_sigprocmask, SIG_SETMASK, as_long(&mask), 0, sizeof(mask));
  return written;
}

}  // namespace

void write_text(int fd, const Text& text) {
  std::size_t written = 0;
  while (written < text.size()) {
    const long n = write_quietly(fd, text.data() + written, text.size() - written);
    if (n <= 0) return;
    written += static_cast<std::size_t>(n);
  }
}

namespace {
int message_fd = STDERR_FILENO;
}  // namespace

void mute_if_stderr_is_closed() {
  if (failed(system_call(SYS_fcntl, STDERR_FILENO, F_GETFD, 0))) message_fd = -1;
}

void print_line(const Text& line) { write_text(message_fd, line); }

void say(const Text& text) {
  Text line;
  line << "libminitc: ";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text.data()[i];
    line << (c == '\n' ? '?' : c);  // out of a variable's value
  }
  print_line(line.end_line());
}

void die(const Text& text) {
  say(text);
  abort();
}

void die_of_check(const char* failed) {
  Text line;  // no second one, as die() has: this is where the stack is deepest
  line << "libminitc: internal error: " << failed;
  print_line(line.end_line());
  abort();
}

bool append_to_file(const char* path, const char* data, std::size_t bytes) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  const long fd = system_call(SYS_openat, AT_FDCWD, as_long(path), kFlags, 0644);
  if (failed(fd)) return false;
  const long written = write_quietly(fd, data, bytes);
  system_call(SYS_close, fd, 0, 0);
  return written == static_cast<long>(bytes);
}

namespace {
std::size_t read_clock_ms(clockid_t clock) {
  timespec now = {};
  system_call(SYS_clock_gettime, clock, as_long(&now), 0);
  return static_cast<std::size_t>(now.tv_sec) * 1000 +
         static_cast<std::size_t>(now.tv_nsec) / 1000000;
}
}  // namespace

std::size_t monotonic_ms() { return read_clock_ms(CLOCK_MONOTONIC); }
std::size_t wall_clock_ms() { return read_clock_ms(CLOCK_REALTIME); }
std::size_t process_id() { return static_cast<std::size_t>(system_call(SYS_getpid, 0, 0, 0)); }

void sleep_ms(std::size_t ms) {
  const timespec time = {.tv_sec = static_cast<time_t>(ms / 1000),
                         .tv_nsec = static_cast<long>(ms % 1000 * 1000000)};
  system_call(SYS_nanosleep, as_long(&time), 0, 0);
}

void futex_wait(const void* word, std::uint32_t expected) {
  system_call(SYS_futex, as_long(word), FUTEX_WAIT_PRIVATE, static_cast<long>(expected));
}

void futex_wake_one(const void* word) {
  system_call(SYS_futex, as_long(word), FUTEX_WAKE_PRIVATE, 1);
}

void futex_wake_all(const void* word) {
  system_call(SYS_futex, as_long(word), FUTEX_WAKE_PRIVATE, INT_MAX);
}

}  // namespace minitc
