// Attributes, checks, alignment helpers and the two page types.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include "core/config.h"

#define MINITC_HOT [[gnu::always_inline]] inline
#define MINITC_COLD [[gnu::cold, gnu::noinline]]
// For a namespace: functions and data of the library's own are reached directly, also before the
// loader has filled in the GOT. -fvisibility=hidden says nothing of what is only declared.
#define MINITC_HIDDEN [[gnu::visibility("hidden")]]

// MINITC_CHECK holds in every build: what it guards would corrupt the program's memory.
// MINITC_ASSERT holds in debug builds and in the unit tests. Numbers behind them (// I7) are those
// of docs/invariants.md.
//
// MINITC_EXPECT is for functions that look at a whole structure and return what does not hold, as
// text, or null: the caller decides whether to die.
#define MINITC_CHECK(condition)                      \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::minitc::die_of_check(MINITC_PLACED(condition)))
#define MINITC_EXPECT(condition)                                        \
  do {                                                                  \
    if (!static_cast<bool>(condition)) return MINITC_PLACED(condition); \
  } while (false)
#define MINITC_PLACED(condition) __FILE__ ":" MINITC_LITERAL(__LINE__) ": " #condition
#define MINITC_LITERAL(number) MINITC_LITERAL_OF(number)
#define MINITC_LITERAL_OF(number) #number
#if defined(MINITC_DEBUG)
#define MINITC_ASSERT(condition) MINITC_CHECK(condition)
#define MINITC_IS_DEBUG true
#else
#define MINITC_ASSERT(condition) static_cast<void>(sizeof(static_cast<bool>(condition)))
#define MINITC_IS_DEBUG false
#endif

// Clang's thread-safety annotations; nothing for other compilers.
#if defined(__clang__)
#define MINITC_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define MINITC_THREAD_ANNOTATION(x)
#endif
#define MINITC_CAPABILITY(x) MINITC_THREAD_ANNOTATION(capability(x))
#define MINITC_SCOPED_CAPABILITY MINITC_THREAD_ANNOTATION(scoped_lockable)
#define MINITC_GUARDED_BY(x) MINITC_THREAD_ANNOTATION(guarded_by(x))
#define MINITC_REQUIRES(...) MINITC_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define MINITC_ACQUIRE(...) MINITC_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define MINITC_RELEASE(...) MINITC_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define MINITC_EXCLUDES(...) MINITC_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define MINITC_RETURNS_LOCK(x) MINITC_THREAD_ANNOTATION(lock_returned(x))
#define MINITC_NO_THREAD_SAFETY_ANALYSIS MINITC_THREAD_ANNOTATION(no_thread_safety_analysis)

// Tells the processor that this is a waiting loop.
#if defined(__x86_64__)
#define MINITC_SPIN_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define MINITC_SPIN_PAUSE() asm volatile("yield")
#else
#define MINITC_SPIN_PAUSE() static_cast<void>(0)
#endif

namespace MINITC_HIDDEN minitc {

// Says on stderr which check failed, and where, and aborts. Defined in os.cc.
[[noreturn]] MINITC_COLD void die_of_check(const char* failed);
// The same for what MINITC_EXPECT returned; nothing for null.
inline void die_if(const char* failed) {
  if (failed != nullptr) die_of_check(failed);
}

// `value`, of which the compiler does not know where it comes from.
template <typename T>
MINITC_HOT T opaque(T value) {
  asm("" : "+r"(value));
  return value;
}

// `value`, in the register in which a function returns it: g++ would have it elsewhere, and move it
// there in the end.
template <typename T>
MINITC_HOT T as_result(T value) {
#if defined(__x86_64__)
  asm("" : "+a"(value));
#endif
  return value;
}

// What is at `slot`, whoever may be writing to it.
inline __attribute__((no_sanitize("thread"))) void* peek(void* const* slot) { return *slot; }

// 2^64 over the golden ratio, and odd. Numbers near each other, times this, lie far apart, and no
// two become one.
inline constexpr std::uint64_t kGolden = 0x9E37'79B9'7F4A'7C15;

constexpr bool is_power_of_two(std::size_t n) { return n != 0 && (n & (n - 1)) == 0; }
// `alignment` is a power of two; `n` + `alignment` must not overflow.
constexpr std::size_t align_up(std::size_t n, std::size_t alignment) {
  return (n + alignment - 1) & ~(alignment - 1);
}
constexpr std::size_t align_down(std::size_t n, std::size_t alignment) {
  return n & ~(alignment - 1);
}

// A number of pages of kPageBytes.
struct PageCount {
  std::size_t value = 0;

  constexpr std::size_t bytes() const { return value << kPageShift; }
  static constexpr PageCount of_bytes(std::size_t bytes) {  // rounds up
    return {(bytes >> kPageShift) + ((bytes & (kPageBytes - 1)) != 0 ? 1 : 0)};
  }
  constexpr auto operator<=>(const PageCount&) const = default;
  constexpr PageCount operator+(PageCount other) const { return {value + other.value}; }
  constexpr PageCount operator-(PageCount other) const { return {value - other.value}; }
  constexpr PageCount& operator+=(PageCount other) { return *this = *this + other; }
  constexpr PageCount& operator-=(PageCount other) { return *this = *this - other; }
};

// A page of the address space, by number.
struct PageId {
  std::uintptr_t value = 0;

  static PageId of(const void* ptr) {
    return {reinterpret_cast<std::uintptr_t>(ptr) >> kPageShift};
  }
  std::uintptr_t address() const { return value << kPageShift; }
  char* ptr() const { return reinterpret_cast<char*>(address()); }
  constexpr auto operator<=>(const PageId&) const = default;
  constexpr PageId operator+(PageCount n) const { return {value + n.value}; }
  constexpr PageId operator-(PageCount n) const { return {value - n.value}; }
  constexpr PageCount operator-(PageId other) const { return {value - other.value}; }
};

inline constexpr PageCount kOnePage{1};

}  // namespace minitc
