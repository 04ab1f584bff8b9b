#include "core/zeros.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <vector>

namespace minitc {
namespace {

constexpr std::size_t kBytes = 4 * 4096;
alignas(4096) char buffer[kBytes];

TEST_CASE("zeros: one byte that is none is seen, wherever it is, and none beside") {
  std::fill_n(buffer, kBytes, '\0');
  char* const start = buffer + kZeroStep;
  const std::size_t bytes = kZeroStep * GENERATE(0U, 1U, 2U, 8U);
  CHECK(is_zero(start, bytes));
  start[bytes] = start[-1] = 1;
  CHECK(is_zero(start, bytes));
  start[bytes] = start[-1] = 0;
  std::size_t missed = 0;
  for (std::size_t at = 0; at < bytes; ++at) {
    start[at] = static_cast<char>(0x80);
    if (is_zero(start, bytes)) ++missed;
    start[at] = 0;
  }
  CHECK(missed == 0);
}

TEST_CASE("zeros: what was written is cleared, from any line on, to any byte, and no more") {
  const std::size_t from = 64 * GENERATE(0U, 1U, 7U, 63U, 64U, 65U);
  const std::size_t bytes =
      GENERATE(0U, 1U, 63U, 511U, 512U, 513U, 4095U, 4096U, 4097U, 8192U, 9000U);
  const std::size_t step = GENERATE(1U, 509U, 4096U);  // between the bytes that are written
  CAPTURE(from, bytes, step);
  std::vector<char> wanted(kBytes);
  for (std::size_t at = 0; at < kBytes; at += step) wanted[at] = 1;
  std::copy(wanted.begin(), wanted.end(), buffer);
  clear_written(buffer + from, bytes);
  std::fill_n(wanted.begin() + static_cast<std::ptrdiff_t>(from), bytes, '\0');
  CHECK(std::vector<char>(buffer, buffer + kBytes) == wanted);
}

}  // namespace
}  // namespace minitc
