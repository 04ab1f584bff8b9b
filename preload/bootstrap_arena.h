// Serves calls that the heap can't: made before this library is relocated, before the loader has
// set up TLS, while the heap starts, or by a signal handler that interrupted its thread inside the
// heap.
//
// A block that is bumped up, then mapped extensions. Nothing is reused but the newest block. No
// lock that an interrupted caller could hold, no TLS, no call through the PLT.
//
// Thread safety: all functions may be called from any thread, at any time, also from signal
// handlers.
#pragma once

#include <cstddef>

#include "core/base.h"

namespace MINITC_HIDDEN minitc {

// `bytes` (0 counts as 1) at a multiple of `alignment` (a power of two); null if the OS refuses.
// The memory is not zeroed.
void* bootstrap_allocate(std::size_t bytes, std::size_t alignment);
// The same, all zero.
void* bootstrap_allocate_zeroed(std::size_t bytes);
// Whether `ptr` lies in the arena.
bool bootstrap_owns(const void* ptr);
// Takes the block at `ptr`, which bootstrap_owns(), back if it is the newest, else forgets it.
void bootstrap_deallocate(void* ptr);
// The usable bytes of the block at `ptr`, which bootstrap_owns().
std::size_t bootstrap_usable_size(const void* ptr);
// The first `bytes` of `from` copied to `to`, without libc's help.
void bootstrap_copy(void* to, const void* from, std::size_t bytes);

}  // namespace minitc
