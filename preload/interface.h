// What the C and the C++ interface share: how functions are exported, and what lies behind their
// fast paths.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/heap.h"

#define MINITC_EXPORT [[gnu::visibility("default")]]
// For what is called most: it begins with a cache line. Where it may begin anywhere, its time
// depends on what lies before it.
#define MINITC_EXPORT_HOT [[gnu::visibility("default"), gnu::aligned(64)]]
#define MINITC_ALIAS(name) [[gnu::alias(name), gnu::visibility("default")]]
// Another name of a function of ours, which other libraries and the program can't replace.
#define MINITC_OWN(name) [[gnu::alias(name), gnu::visibility("hidden")]]

// For aliases gcc wants the attributes that it gives malloc and free by itself.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmissing-attributes"
#endif

namespace MINITC_HIDDEN minitc {

// Where the exported function that this stands in returns to, in the program: tells its calls
// apart. In a slow function that is reached by tail calls only, likewise.
MINITC_HOT std::uintptr_t call_site() {
  return reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
}

// A new object of at least `bytes` from the heap or the bootstrap arena; null if there is none.
// Does not touch errno.
MINITC_COLD void* allocate_or_null(std::size_t bytes);
// The same, aligned; also null if `alignment` is not a power of two.
void* allocate_aligned_or_null(std::size_t alignment, std::size_t bytes);
// What free() does where its fast path does not.
MINITC_COLD void free_slow(void* ptr);
// Whether a call of malloc() anywhere in the process leads to this library.
bool malloc_is_ours();

}  // namespace minitc
