#include "core/zeros.h"

#include <string.h>

#include <algorithm>
#include <cstdint>

namespace minitc {
namespace {

// In registers that x86-64 and AArch64 always have: a third to two thirds of the time of words.
bool is_zero_step(const char* at) {
  using Words = std::uint64_t __attribute__((vector_size(16)));
  Words seen[2] = {};
  for (std::size_t i = 0; i < kZeroStep; i += sizeof(seen)) {
    seen[0] |= *reinterpret_cast<const Words*>(at + i);
    seen[1] |= *reinterpret_cast<const Words*>(at + i + sizeof(Words));
  }
  const Words both = seen[0] | seen[1];
  return (both[0] | both[1]) == 0;
}

}  // namespace

bool is_zero(const char* start, std::size_t bytes) {
  const char* const end = start + bytes;
  while (start != end && is_zero_step(start)) start += kZeroStep;
  return start == end;
}

void clear_written(char* start, std::size_t bytes) {
  constexpr std::size_t kLeastPage = 4096;  // of any kernel
  char* const end = start + bytes;
  for (char* at = start; at != end;) {
    const std::size_t in_page = reinterpret_cast<std::uintptr_t>(at) % kLeastPage;
    char* const page_end = std::min(at + kLeastPage - in_page, end);
    while (at + kZeroStep <= page_end && is_zero_step(at)) at += kZeroStep;
    memset(at, 0, static_cast<std::size_t>(page_end - at));
    at = page_end;
  }
}

}  // namespace minitc
