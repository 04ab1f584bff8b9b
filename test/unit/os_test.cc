#include "core/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <initializer_list>
#include <iterator>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::all_bytes_are;
using test::all_zero;
using test::death;
using test::ending_of;

constexpr std::size_t kBytes = 32 * kPageBytes;  // whole kernel pages, of any size

bool is_mapped(void* page) {
  unsigned char resident;
  return mincore(page, 1, &resident) == 0;
}

char* reserve(const Os& os, std::size_t bytes) { return static_cast<char*>(os.reserve(bytes)); }

TEST_CASE("os: the page size is the kernel's") {
  CHECK(kernel_os().page_bytes == static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
}

TEST_CASE("os: reserved memory is aligned, zero, writable and released again") {
  const Os os = kernel_os();
  // Something of half a page between two reservations would push the next out of line.
  std::vector<void*> wedges;
  for (std::size_t pages = 1; pages <= 9; ++pages) {
    char* const memory = reserve(os, pages * kPageBytes);
    REQUIRE(memory != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % kPageBytes == 0);
    CHECK(all_zero(memory, pages * kPageBytes));
    memset(memory, 1, pages * kPageBytes);
    void* const wedge = mmap(nullptr, os.page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    wedges.push_back(wedge);
    CHECK(os.release(memory, pages * kPageBytes));
  }
  for (void* const wedge : wedges) munmap(wedge, os.page_bytes);

  char* const memory = reserve(os, kBytes);
  CHECK(is_mapped(memory + kBytes - os.page_bytes));
  CHECK(os.release(memory, kBytes));
  CHECK_FALSE(is_mapped(memory));
  CHECK_FALSE(is_mapped(memory + kBytes - os.page_bytes));
}

TEST_CASE("os: a reservation that was out of line leaves nothing beside it mapped") {
  const Os os = kernel_os();
  if (os.page_bytes >= kPageBytes) return;  // then none is ever out of line
  // A hole of an odd number of kernel pages, as the kernel would fill it from its top.
  const std::size_t hole = kPageBytes + 3 * os.page_bytes;
  char* const room = reserve(os, hole + 2 * kPageBytes);
  for (std::size_t skew = 0; skew < kPageBytes; skew += os.page_bytes) {
    char* const start = room + skew;
    CHECK(os.release(start, hole));
    char* const memory = reserve(os, kPageBytes);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % kPageBytes == 0);
    std::size_t mapped = 0;
    for (std::size_t i = 0; i < hole; i += os.page_bytes) mapped += is_mapped(start + i) ? 1 : 0;
    const bool inside = memory >= start && memory < start + hole;
    CHECK(mapped == (inside ? kPageBytes / os.page_bytes : 0));
    CHECK(os.release(memory, kPageBytes));
    void* const again =
        mmap(start, hole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    REQUIRE(again == start);
  }
  CHECK(os.release(room, hole + 2 * kPageBytes));
}

TEST_CASE("os: what cannot be reserved is refused, and errno is left alone") {
  const Os os = kernel_os();
  errno = 777;
  CHECK(os.reserve(align_down(SIZE_MAX, kPageBytes)) == nullptr);
  CHECK(os.reserve(align_down(PTRDIFF_MAX, kPageBytes)) == nullptr);
  CHECK(os.reserve(std::size_t{1} << 47) == nullptr);
  CHECK(reserve_from_kernel(std::size_t{1} << 47) == nullptr);
  CHECK(errno == 777);
}

TEST_CASE("os: a refused release leaves the mapping as it was") {
  const Os os = kernel_os();
  char* const memory = reserve(os, kBytes);
  memset(memory, 5, kBytes);
  errno = 777;
  CHECK_FALSE(os.release(memory + 1, kBytes));
  CHECK(errno == 777);
  CHECK(all_bytes_are(memory, kBytes, 5));
  CHECK(os.release(memory, kBytes));
}

TEST_CASE("os: decommitted pages read as zeros and stay mapped, their neighbours stay", "[I6]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, 3 * kBytes);
  memset(memory, 5, 3 * kBytes);
  REQUIRE(os.decommit(memory + kBytes, kBytes));
  CHECK(all_bytes_are(memory, kBytes, 5));
  CHECK(all_zero(memory + kBytes, kBytes));
  CHECK(all_bytes_are(memory + 2 * kBytes, kBytes, 5));
  memset(memory + kBytes, 6, kBytes);
  CHECK(all_bytes_are(memory + kBytes, kBytes, 6));
  CHECK(os.release(memory, 3 * kBytes));
}

TEST_CASE("os: offered pages hold what is written to them afterwards, their neighbours stay") {
  const Os os = kernel_os();
  char* const memory = reserve(os, 3 * kBytes);
  memset(memory, 5, 3 * kBytes);
  errno = 777;
  REQUIRE(os.offer(memory + kBytes, kBytes));
  os.want_huge_pages(memory, 3 * kBytes, true);
  os.want_huge_pages(memory, 3 * kBytes, false);
  CHECK(errno == 777);
  CHECK(all_bytes_are(memory, kBytes, 5));
  CHECK(all_bytes_are(memory + 2 * kBytes, kBytes, 5));
  memset(memory + kBytes, 6, kBytes);
  CHECK(all_bytes_are(memory + kBytes, kBytes, 6));
  CHECK(os.release(memory, 3 * kBytes));
}

TEST_CASE("os: populated pages have memory and read as zeros; who refuses it is not asked again",
          "[kernel]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, 3 * kBytes);
  const auto resident = [&](std::size_t nth) {
    unsigned char pages[kBytes / 4096] = {};
    REQUIRE(mincore(memory + nth * kBytes, kBytes, pages) == 0);
    const auto count = std::count(std::begin(pages), std::end(pages), 1);
    return static_cast<std::size_t>(count) * os.page_bytes;
  };
  os.want_huge_pages(memory, 3 * kBytes, false);  // of which one might hold all of it
  constexpr int kPopulateWrite = 23;              // MADV_POPULATE_WRITE, since Linux 5.14
  const bool is_known = madvise(memory, kBytes, kPopulateWrite) == 0;
  REQUIRE(resident(1) == 0);
  errno = 777;
  os.populate(memory + kBytes, kBytes);
  CHECK(resident(1) == (is_known ? kBytes : 0));
  CHECK(resident(2) == 0);
  CHECK(all_zero(memory + kBytes, kBytes));
  memory[kBytes] = 5;
  os.populate(memory + kBytes, kBytes);
  CHECK(memory[kBytes] == 5);

  os.populate(memory + 1, kBytes);  // refused
  os.populate(memory + 2 * kBytes, kBytes);
  CHECK(resident(2) == 0);
  CHECK(errno == 777);
  CHECK(os.release(memory, 3 * kBytes));
}

TEST_CASE("os: whether a page can be read is told without a read", "[kernel]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, 2 * kBytes);
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, since Linux 5.14
  const bool is_known = madvise(memory, kBytes, kPopulateRead) == 0;
  errno = 777;
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{1}, kBytes - 1, kBytes, 2 * kBytes - 1}) {
    CHECK(os.can_read(memory + at) == is_known);
  }
  REQUIRE(mprotect(memory + kBytes, kBytes, PROT_NONE) == 0);
  CHECK(os.can_read(memory + kBytes - 1) == is_known);
  CHECK_FALSE(os.can_read(memory + kBytes));
  CHECK(all_zero(memory, kBytes));
  REQUIRE(munmap(memory + kBytes, kBytes) == 0);
  CHECK_FALSE(os.can_read(memory + kBytes));
  CHECK(errno == 777);
  CHECK(os.release(memory, kBytes));
}

TEST_CASE("os: the clock goes forward, by about a millisecond in a millisecond") {
  const Os os = kernel_os();
  const std::uint32_t before = os.now_ms();
  usleep(100000);
  const std::uint32_t passed = os.now_ms() - before;
  CHECK(passed >= 40);
  CHECK(passed < 60000);
}

TEST_CASE("os: processors are those that this process may run on") {
  const Os os = kernel_os();
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof(all), &all) == 0);
  CHECK(os.processors() == static_cast<unsigned>(CPU_COUNT(&all)));
  CHECK(ending_of([&] {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(sched_getcpu(), &one);
          if (sched_setaffinity(0, sizeof(one), &one) != 0) _exit(1);
          _exit(os.processors() == 1 ? 0 : 2);
        }) == "exit 0: ");
}

TEST_CASE("os: a file is read whole, or as far as there is room, or not at all") {
  char path[] = "/tmp/os_test.XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  REQUIRE(write(fd, "hello", 5) == 5);
  REQUIRE(close(fd) == 0);
  char buffer[16] = {};
  errno = 777;
  CHECK(read_file(path, buffer, sizeof(buffer)) == 5);
  CHECK(std::string(buffer, 5) == "hello");
  CHECK(read_file(path, buffer, 3) == 3);
  CHECK(read_file("/dev/null", buffer, sizeof(buffer)) == 0);
  CHECK(read_file("/tmp", buffer, sizeof(buffer)) == -1);  // a folder
  CHECK(read_file("/nonexistent", buffer, sizeof(buffer)) == -1);
  CHECK(errno == 777);
  CHECK(unlink(path) == 0);
}

// [kernel]: an emulator lets no system call be replaced, and may accept what the kernel refuses.
TEST_CASE("os: a decommit where nothing is mapped is refused", "[kernel]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, kBytes);
  CHECK(os.decommit(memory, kPageBytes));  // from now on decommit trusts the kernel
  CHECK(os.release(memory, kBytes));
  errno = 777;
  CHECK_FALSE(os.decommit(memory, kBytes));
  CHECK(errno == 777);
}

void install_filter(std::vector<sock_filter> rules) {
  const sock_fprog program{static_cast<unsigned short>(rules.size()), rules.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    _exit(2);
  }
}
// Makes the system calls do nothing and return these errors, or 0, for good.
struct Replaced {
  long number;
  unsigned error;
};
void replace_system_calls(std::initializer_list<Replaced> calls) {
  std::vector<sock_filter> rules = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const Replaced& call : calls) {
    rules.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call.number), 0, 1));
    rules.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | call.error));
  }
  rules.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  install_filter(std::move(rules));
}

// In a process of its own each, since what a decommit finds out holds for later ones.
TEST_CASE("alone: a kernel that only pretends to decommit is found out", "[.alone]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, kBytes);
  memset(memory, 5, kBytes);
  replace_system_calls({{SYS_madvise, 0}});
  CHECK_FALSE(os.decommit(memory, kBytes));
  CHECK_FALSE(os.decommit(memory, kBytes));
}

// As qemu does it on a machine with pages of 64 KiB, of which it does not tell the program.
TEST_CASE("alone: a kernel that decommits whole pages of its own alone is found out", "[.alone]") {
  constexpr std::size_t kWhole = 64 * 1024;
  const Os os = kernel_os();
  char* const memory = reinterpret_cast<char*>(
      align_up(reinterpret_cast<std::uintptr_t>(reserve(os, kBytes + kWhole)), kWhole));
  const auto comes_back = [&](std::size_t bytes) {
    memset(memory, 5, kBytes);
    const bool returned = os.decommit(memory, bytes);
    CHECK(*memory == (returned ? 0 : 1));  // where it looks
    CHECK(all_bytes_are(memory + 1, bytes - 1, returned ? 0 : 5));
    return returned;
  };
  install_filter({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(SYS_madvise), 0, 3),
                  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
                  BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kWhole - 1, 0, 1),
                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)});
  CHECK(comes_back(2 * kWhole));
  CHECK_FALSE(comes_back(2 * kWhole + kPageBytes));
  CHECK(comes_back(kWhole));
  CHECK_FALSE(comes_back(kPageBytes));
}

TEST_CASE("alone: a kernel that decommits the least there is is not doubted any more", "[.alone]") {
  const Os os = kernel_os();
  const std::size_t least = std::max(kPageBytes, os.page_bytes);
  char* const memory = reserve(os, kBytes);
  CHECK(os.decommit(memory, least));
  memset(memory, 5, kBytes);
  replace_system_calls({{SYS_madvise, 0}});
  CHECK(os.decommit(memory, kBytes));
}

// The look at the first byte brings a page, or a huge one.
TEST_CASE("alone: what was looked at is dropped with the rest", "[.alone]") {
  const Os os = kernel_os();
  char* const memory = reinterpret_cast<char*>(
      align_up(reinterpret_cast<std::uintptr_t>(reserve(os, 2 * kHugePageBytes)), kHugePageBytes));
  os.want_huge_pages(memory, kHugePageBytes, true);
  memset(memory, 5, kHugePageBytes);
  CHECK(os.decommit(memory, kHugePageBytes));
  std::vector<unsigned char> has_memory(kHugePageBytes / os.page_bytes);
  REQUIRE(mincore(memory, kHugePageBytes, has_memory.data()) == 0);
  CHECK(std::count_if(has_memory.begin(), has_memory.end(), [](auto b) { return (b & 1) != 0; }) ==
        0);
}

TEST_CASE("alone: a refusal does not decide what later calls find", "[.alone]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, kBytes);
  char* const unmapped_end = memory + kBytes / 2;
  memset(memory, 5, kBytes);
  munmap(unmapped_end, kBytes / 2);
  CHECK_FALSE(os.decommit(memory, kBytes));  // ENOMEM: half of it is not there
  memset(memory, 5, kBytes / 2);
  CHECK(os.decommit(memory, kBytes / 2));
  CHECK(all_zero(memory, kBytes / 2));
}

TEST_CASE("os: decommit tells a kernel that keeps the contents from one that refused once",
          "[kernel]") {
  for (const char* const name :
       {"alone: a kernel that only pretends to decommit is found out",
        "alone: a kernel that decommits whole pages of its own alone is found out",
        "alone: a kernel that decommits the least there is is not doubted any more",
        "alone: a refusal does not decide what later calls find"}) {
    CAPTURE(name);
    const std::string ending = ending_of([name] {
      dup2(STDERR_FILENO, STDOUT_FILENO);
      execl("/proc/self/exe", "unit", name, static_cast<char*>(nullptr));
    });
    CAPTURE(ending);
    CHECK(ending.find("exit 0: ") == 0);
    CHECK(ending.find("All tests passed") != std::string::npos);  // and not none
  }
}

TEST_CASE("os: moved pages arrive, what was there is gone, and zeros stay behind", "[I6]") {
  const Os os = kernel_os();
  char* const from = reserve(os, 3 * kBytes);
  char* const to = reserve(os, 4 * kBytes);
  memset(from, 5, 3 * kBytes);
  memset(to, 6, 4 * kBytes);
  errno = 777;
  REQUIRE(os.move(from + kBytes, kBytes, to + kBytes, 2 * kBytes) == Move::kDone);
  CHECK(errno == 777);
  CHECK(all_zero(from + kBytes, kBytes));
  CHECK(all_bytes_are(to + kBytes, kBytes, 5));
  CHECK(all_zero(to + 2 * kBytes, kBytes));
  memset(from + kBytes, 7, kBytes);  // still writable
  memset(to + 2 * kBytes, 8, kBytes);
  CHECK(all_bytes_are(to + kBytes, kBytes, 5));
  CHECK(all_bytes_are(from, kBytes, 5));
  CHECK(all_bytes_are(from + 2 * kBytes, kBytes, 5));
  CHECK(all_bytes_are(to, kBytes, 6));
  CHECK(all_bytes_are(to + 3 * kBytes, kBytes, 6));
  CHECK(os.release(from, 3 * kBytes));
  CHECK(os.release(to, 4 * kBytes));
}

TEST_CASE("os: pages that were moved can be moved again, with what follows them", "[I6]") {
  const Os os = kernel_os();
  char* const places[] = {reserve(os, kBytes), reserve(os, 2 * kBytes), reserve(os, 3 * kBytes),
                          reserve(os, 4 * kBytes)};
  memset(places[0], 5, kBytes);
  for (std::size_t i = 1; i < 4; ++i) {
    REQUIRE(os.move(places[i - 1], i * kBytes, places[i], (i + 1) * kBytes) == Move::kDone);
    CHECK(all_bytes_are(places[i], i * kBytes, 5));
    memset(places[i], 5, (i + 1) * kBytes);
  }
  for (std::size_t i = 0; i < 4; ++i) CHECK(os.release(places[i], (i + 1) * kBytes));
}

TEST_CASE("os: a move that fails says what it left of source and target", "[kernel]") {
  const Os os = kernel_os();
  char* const from = reserve(os, kBytes);
  char* const to = reserve(os, 2 * kBytes);
  memset(from, 5, kBytes);
  const auto ending_with = [&](std::initializer_list<Replaced> calls, bool unmaps, Move expected) {
    return ending_of([&] {
      // As the kernel may do before it refuses. Directly: a sanitizer would map something.
      if (unmaps) syscall(SYS_munmap, to, 2 * kBytes);
      replace_system_calls(calls);
      errno = 777;
      if (os.move(from, kBytes, to, 2 * kBytes) != expected) _exit(1);
      if (errno != 777 || !all_bytes_are(from, kBytes, 5)) _exit(2);
      if (expected == Move::kRefused) memset(to, 7, 2 * kBytes);  // dies if it is not there
      _exit(0);
    });
  };
  CHECK(ending_with({{SYS_mremap, EINVAL}}, false, Move::kRefused) == "exit 0: ");
  CHECK(ending_with({{SYS_mremap, ENOMEM}}, true, Move::kRefused) == "exit 0: ");
  CHECK(ending_with({{SYS_mremap, ENOMEM}, {SYS_mmap, ENOMEM}}, true, Move::kTargetLost) ==
        "exit 0: ");
  // The pages went, and the hole they left cannot be filled.
  CHECK(ending_of([&] {
          replace_system_calls({{SYS_mmap, ENOMEM}});
          if (os.move(from, kBytes, to, 2 * kBytes) != Move::kSourceLost) _exit(1);
          _exit(all_bytes_are(to, kBytes, 5) ? 0 : 2);
        }) == "exit 0: ");
  CHECK(os.release(from, kBytes));
  CHECK(os.release(to, 2 * kBytes));
}

TEST_CASE("os: a renewed range reads as zeros, its neighbours stay", "[I6]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, 3 * kBytes);
  memset(memory, 5, 3 * kBytes);
  errno = 777;
  REQUIRE(os.renew(memory + kBytes, kBytes));
  CHECK(errno == 777);
  CHECK(all_zero(memory + kBytes, kBytes));
  memset(memory + kBytes, 6, kBytes);
  CHECK(all_bytes_are(memory, kBytes, 5));
  CHECK(all_bytes_are(memory + 2 * kBytes, kBytes, 5));
  CHECK(os.release(memory, 3 * kBytes));
}

TEST_CASE("os: a range whose renewal is refused is as it was", "[kernel]") {
  const Os os = kernel_os();
  char* const memory = reserve(os, kBytes);
  memset(memory, 5, kBytes);
  CHECK(ending_of([&] {
          replace_system_calls({{SYS_mmap, ENOMEM}});
          _exit(!os.renew(memory, kBytes) && all_bytes_are(memory, kBytes, 5) ? 0 : 1);
        }) == "exit 0: ");
  CHECK(os.release(memory, kBytes));
}

TEST_CASE("os: text is written whole") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  write_text(ends[1], Text() << "hello " << std::size_t{42} << '\n');
  char buffer[32] = {};
  CHECK(read(ends[0], buffer, sizeof(buffer)) == 9);
  CHECK(std::string(buffer) == "hello 42\n");
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("os: text that the kernel does not take is given up, and errno is left alone") {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  errno = 777;
  for (int i = 0; i < 2000; ++i) write_text(ends[1], Text() << std::string(200, 'x').c_str());
  close(ends[0]);
  close(ends[1]);
  write_text(ends[1], Text() << "nobody reads this");
  write_text(-1, Text() << "nor this");
  CHECK(errno == 777);
}

// Writes to a pipe that nobody reads.
void write_in_vain() {
  int ends[2];
  if (pipe(ends) != 0) _exit(9);
  close(ends[0]);
  Text text;
  text << "in vain";
  write_text(ends[1], text);
  close(ends[1]);
}

bool is_pending(int number) {
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
}

TEST_CASE("os: no signal comes of a write that nobody reads, and those of others are left alone") {
  const int before = GENERATE(0, 1, 2);  // the default; blocked; blocked and pending
  const bool is_blocked = before != 0;
  const bool was_pending = before == 2;
  CHECK(ending_of([&] {
          sigset_t set;
          sigemptyset(&set);
          sigaddset(&set, SIGPIPE);
          if (is_blocked) sigprocmask(SIG_BLOCK, &set, nullptr);
          if (was_pending) raise(SIGPIPE);
          write_in_vain();
          sigset_t mask;
          sigprocmask(SIG_SETMASK, nullptr, &mask);
          if ((sigismember(&mask, SIGPIPE) == 1) != is_blocked) _exit(1);
          _exit(is_pending(SIGPIPE) == was_pending ? 0 : 2);
        }) == "exit 0: ");
}

TEST_CASE("os: say() writes one line, die() a line and aborts") {
  CHECK(ending_of([] { say(Text() << "hello " << std::size_t{42}); }) ==
        "exit 0: libminitc: hello 42\n");
  CHECK(ending_of([] { die(Text() << "no more"); }) == death("no more"));
}

TEST_CASE("os: nothing is said where stderr was closed at the start") {
  CHECK(ending_of([] {
          const int kept = dup(STDERR_FILENO);
          close(STDERR_FILENO);
          errno = 777;
          mute_if_stderr_is_closed();
          if (errno != 777) _exit(1);
          dup2(kept, STDERR_FILENO);  // as if the program had opened a file
          say(Text() << "hello");
          print_line(Text() << "hello\n");
          die(Text() << "no more");
        }) == "SIGABRT: ");
  CHECK(ending_of([] {
          mute_if_stderr_is_closed();
          say(Text() << "hello");
        }) == "exit 0: libminitc: hello\n");
}

TEST_CASE("os: a line that is cut off is still a line") {
  const std::string line = ending_of([] { say(Text() << std::string(1000, 'x').c_str()); });
  CHECK(line.find("exit 0: libminitc: xxxx") == 0);
  CHECK(line.back() == '\n');
}

TEST_CASE("os: a wait ends at once if the word has changed, and when it is woken") {
  std::atomic<std::uint32_t> word{1};
  futex_wait(&word, 2);
  std::thread waker([&word] {
    word.store(2, std::memory_order_release);
    futex_wake_one(&word);
  });
  while (word.load(std::memory_order_acquire) == 1) futex_wait(&word, 1);
  waker.join();
  CHECK(word.load() == 2);
}

}  // namespace
}  // namespace minitc
