// Memory that may hold zeros: whether it does, and making it so at the least cost.
#pragma once

#include <cstddef>

#include "core/base.h"

namespace MINITC_HIDDEN minitc {

// So many bytes are read between two tests.
inline constexpr std::size_t kZeroStep = 512;

// Whether `bytes`, a multiple of kZeroStep, from `start` on, a multiple of 16, are all zero.
bool is_zero(const char* start, std::size_t bytes);

// Makes `bytes` from the start of a line on read as zeros, but writes to no page that already does:
// if it has no memory, it is the kernel's one page of zeros that is read, and stays so.
void clear_written(char* start, std::size_t bytes);

}  // namespace minitc
