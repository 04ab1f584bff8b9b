// The memory limit that the process's control group sets, from the kernel's files.
//
// Thread safety: none; for the start of the heap.
#pragma once

#include <cstddef>

#include "core/base.h"
#include "core/os.h"

namespace MINITC_HIDDEN minitc {

// What no group limits.
inline constexpr std::size_t kNoCgroupLimit = SIZE_MAX;

// The least limit, in bytes, of this process's group and of those that it is in, in version 1 and 2
// of the interface; kNoCgroupLimit if they set none, 0 if none can be read. `read` is as
// read_file().
std::size_t cgroup_memory_limit(decltype(&read_file) read);

}  // namespace minitc
