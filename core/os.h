// The kernel, as far as the allocator needs it. No other file makes a system call.
//
// System calls are made directly, not through libc: another preloaded library may interpose libc's
// wrappers with code that allocates, and a direct call leaves errno alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/text.h"

namespace MINITC_HIDDEN minitc {

enum class Move : std::uint8_t {
  kDone,        // `from` reads as zeros
  kSourceLost,  // done, but the addresses of `from` are not ours any more
  kRefused,     // `from` is as it was, the contents of `to` are lost
  kTargetLost,  // likewise, and the addresses of `to` are not ours any more
};

// Whether `ms` milliseconds have passed from `then` to `now`, which Os::now_ms gave. If `now` was
// read first, by a thread that was held up for less than hours, they have not.
constexpr bool have_passed(std::uint32_t ms, std::uint32_t then, std::uint32_t now) {
  constexpr std::uint32_t kHeldUpMs = std::uint32_t{1} << 24;
  const std::uint32_t passed = now - then;
  return passed >= ms && passed < UINT32_MAX - kHeldUpMs;
}

// What page heap, page map and metadata arena ask of the OS. A table, so that a test can pass one
// that fails at the n-th call; it is off every fast path.
struct Os {
  // Maps `bytes` (a multiple of kPageBytes) of zero pages at a multiple of kPageBytes, readable and
  // writable, without reserving swap. Null if refused.
  void* (*reserve)(std::size_t bytes);
  // Unmaps what `reserve` gave. False if refused; the mapping is then as it was.
  bool (*release)(void* start, std::size_t bytes);
  // Gives the pages' memory back; the addresses stay mapped and read as zeros. Start and length are
  // multiples of page_bytes. False if refused or if they may read as anything but zeros.
  bool (*decommit)(void* start, std::size_t bytes);
  // Lets the kernel take the pages' memory when it is short of any (MADV_FREE). Until then they are
  // resident; what they read as is undefined until they are written to. As decommit otherwise.
  bool (*offer)(void* start, std::size_t bytes);
  // Asks for huge pages in a range, or for none. What the kernel makes of it shows in no result.
  void (*want_huge_pages)(void* start, std::size_t bytes, bool wanted);
  // Gets memory for a range that will be written to soon: one call instead of a fault for each
  // page. A hint. Start and length are multiples of page_bytes.
  void (*populate)(void* start, std::size_t bytes);
  // Whether the page of the OS that `page` points into can be read. False if it refuses to tell.
  bool (*can_read)(const void* page);
  // Moves the pages of [from, from + bytes) to the beginning of [to, to + to_bytes), a longer range
  // whose own pages are dropped; what follows them there reads as zeros.
  Move (*move)(void* from, std::size_t bytes, void* to, std::size_t to_bytes);
  // Drops the pages of the range and makes it one mapping that reads as zeros. False if refused;
  // the range is then as it was.
  bool (*renew)(void* start, std::size_t bytes);
  // A clock that goes forward and wraps around: milliseconds, give or take half. For ages only, by
  // have_passed().
  std::uint32_t (*now_ms)();
  // How many processors this process may run on; UINT_MAX if the kernel does not say.
  unsigned (*processors)();
  // The kernel's page size in bytes: a power of two, 4 KiB to 64 KiB.
  std::size_t page_bytes;
};

// The kernel this process runs on. Its page size is read at run time.
Os kernel_os();

// Address space for the bootstrap arena, for which no table exists yet: as Os::reserve.
void* reserve_from_kernel(std::size_t bytes);

// Reads at most `bytes` from the beginning of a file; how many, or -1 if it can't be read.
std::ptrdiff_t read_file(const char* path, char* buffer, std::size_t bytes);

// Writes all of `text` to `fd`, as far as the kernel takes it.
void write_text(int fd, const Text& text);
// From now on nothing is said if stderr is closed: a file that the program opens may get its
// number.
void mute_if_stderr_is_closed();
// Writes `line` to stderr.
void print_line(const Text& line);
// Writes "libminitc: TEXT\n" to stderr.
void say(const Text& text);
// As say(), then abort().
[[noreturn]] MINITC_COLD void die(const Text& text);

// Appends to a file, which is made if need be, in one call of write: lines of several processes do
// not mix. False if the kernel refuses or takes only a part. Does not wait for a reader of a pipe.
bool append_to_file(const char* path, const char* data, std::size_t bytes);
// Of a clock that only goes forward; since 1970.
std::size_t monotonic_ms();
std::size_t wall_clock_ms();
std::size_t process_id();

void sleep_ms(std::size_t ms);

// Sleeps while the 32 bits at `word`, which is aligned to them, are `expected`, at most until
// woken; may return at any time.
void futex_wait(const void* word, std::uint32_t expected);
void futex_wake_one(const void* word);
void futex_wake_all(const void* word);

}  // namespace minitc
