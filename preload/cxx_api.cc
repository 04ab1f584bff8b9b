// operator new and delete, all forms.
//
// This library is not linked with a C++ runtime and is built without exceptions. Where memory is
// refused it calls the definition of the same operator that the program's own runtime has: that one
// knows the new_handler, loops, throws std::bad_alloc or, in the nothrow forms, catches what the
// handler throws; and it allocates by malloc and aligned_alloc, which are ours. It is looked up
// only then, so that a runtime that came by dlopen() is found too.

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

#include "core/heap.h"
#include "preload/interface.h"

namespace minitc {
namespace {

// The runtime's forms that catch what the forms below them throw.
constexpr char kNothrow[] = "_ZnwmRKSt9nothrow_t";
constexpr char kArrayNothrow[] = "_ZnamRKSt9nothrow_t";
constexpr char kAlignedNothrow[] = "_ZnwmSt11align_val_tRKSt9nothrow_t";
constexpr char kArrayAlignedNothrow[] = "_ZnamSt11align_val_tRKSt9nothrow_t";

// The runtime's definition of `symbol`, or null. Those that we know come first: what is next after
// ours may be another malloc's, which knows nothing of the program's operators.
void* runtime_symbol(const char* symbol) {
  for (const char* const library : {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"}) {
    void* const handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) continue;
    if (void* const found = dlsym(handle, symbol); found != nullptr) return found;
  }
  return dlsym(RTLD_NEXT, symbol);
}

[[noreturn]] void die_without_runtime(std::size_t bytes) {
  Text text;
  text << "operator new(" << bytes
       << "): out of memory, and no C++ runtime is loaded that could throw std::bad_alloc";
  die(text);
}

MINITC_COLD void* new_slow(std::size_t bytes) {
  if (void* const object = allocate_or_null(bytes); object != nullptr) return object;
  using New = void* (*)(std::size_t);
  const New runtime = reinterpret_cast<New>(runtime_symbol("_Znwm"));
  if (runtime == nullptr) die_without_runtime(bytes);
  return runtime(bytes);
}

// Null if there is no runtime. `symbol`: of the single or the array form.
MINITC_COLD void* call_runtime_nothrow(const char* symbol, std::size_t bytes) {
  using New = void* (*)(std::size_t, const std::nothrow_t&);
  const New runtime = reinterpret_cast<New>(runtime_symbol(symbol));
  return runtime == nullptr ? nullptr : runtime(bytes, std::nothrow_t());
}

MINITC_COLD void* new_nothrow_slow(std::size_t bytes) {
  void* const object = allocate_or_null(bytes);
  return object != nullptr ? object : call_runtime_nothrow(kNothrow, bytes);
}

// The size to ask the runtime for when `bytes` were refused. libstdc++ rounds it up to a multiple
// of the alignment, to 0 if that overflows: a size near SIZE_MAX is as hopeless a little smaller.
std::size_t hopeless(std::size_t bytes, std::align_val_t alignment) {
  return std::min(bytes, PTRDIFF_MAX - static_cast<std::size_t>(alignment) / 2);
}

MINITC_COLD void* new_aligned_failed(std::size_t bytes, std::align_val_t alignment) {
  using New = void* (*)(std::size_t, std::align_val_t);
  const New runtime = reinterpret_cast<New>(runtime_symbol("_ZnwmSt11align_val_t"));
  if (runtime == nullptr) die_without_runtime(bytes);
  return runtime(hopeless(bytes, alignment), alignment);
}

// Null if there is no runtime.
MINITC_COLD void* call_runtime_nothrow(const char* symbol, std::size_t bytes,
                                       std::align_val_t alignment) {
  using New = void* (*)(std::size_t, std::align_val_t, const std::nothrow_t&);
  const New runtime = reinterpret_cast<New>(runtime_symbol(symbol));
  return runtime == nullptr ? nullptr
                            : runtime(hopeless(bytes, alignment), alignment, std::nothrow_t());
}

// Our own forms under names that no program replaces.
MINITC_OWN("_Znwm") void* own_new(std::size_t bytes);
MINITC_OWN("_Znam") void* own_new_array(std::size_t bytes);
MINITC_OWN("_ZnwmSt11align_val_t")
void* own_new_aligned(std::size_t bytes, std::align_val_t alignment);
MINITC_OWN("_ZnamSt11align_val_t")
void* own_new_array_aligned(std::size_t bytes, std::align_val_t alignment);

// Whether the program has not replaced the form that a nothrow form stands on. The addresses are
// those that the loader chose.
using New = void* (*)(std::size_t);
using NewAligned = void* (*)(std::size_t, std::align_val_t);
bool new_is_ours() { return static_cast<New>(::operator new) == own_new; }
bool new_array_is_ours() { return static_cast<New>(::operator new[]) == own_new_array; }
bool new_aligned_is_ours() { return static_cast<NewAligned>(::operator new) == own_new_aligned; }
bool new_array_aligned_is_ours() {
  return static_cast<NewAligned>(::operator new[]) == own_new_array_aligned;
}

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

// A program may replace the base forms alone, new(size) and delete(pointer), or the aligned ones,
// and may count on all other forms to call them ([new.delete]). So those call them by name: a jump
// through the GOT. Sizes and alignments that are said to delete are not looked at.

// --- new ----------------------------------------------------------------------------------------

MINITC_EXPORT_HOT void* operator new(std::size_t bytes) { return g_heap.allocate(bytes, new_slow); }

MINITC_EXPORT void* operator new(std::size_t bytes, std::align_val_t alignment) {
  void* const object = allocate_aligned_or_null(static_cast<std::size_t>(alignment), bytes);
  return object != nullptr ? object : new_aligned_failed(bytes, alignment);
}

MINITC_EXPORT void* operator new[](std::size_t bytes) { return ::operator new(bytes); }

MINITC_EXPORT void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return ::operator new(bytes, alignment);
}

MINITC_EXPORT void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (!new_is_ours()) return call_runtime_nothrow(kNothrow, bytes);
  return g_heap.allocate(bytes, new_nothrow_slow);
}

MINITC_EXPORT void* operator new(std::size_t bytes, std::align_val_t alignment,
                                 const std::nothrow_t&) noexcept {
  if (!new_aligned_is_ours()) return call_runtime_nothrow(kAlignedNothrow, bytes, alignment);
  void* const object = allocate_aligned_or_null(static_cast<std::size_t>(alignment), bytes);
  return object != nullptr ? object : call_runtime_nothrow(kAlignedNothrow, bytes, alignment);
}

MINITC_EXPORT void* operator new[](std::size_t bytes, const std::nothrow_t& tag) noexcept {
  if (!new_array_is_ours()) return call_runtime_nothrow(kArrayNothrow, bytes);
  return ::operator new(bytes, tag);
}

MINITC_EXPORT void* operator new[](std::size_t bytes, std::align_val_t alignment,
                                   const std::nothrow_t& tag) noexcept {
  if (!new_array_aligned_is_ours()) {
    return call_runtime_nothrow(kArrayAlignedNothrow, bytes, alignment);
  }
  return ::operator new(bytes, alignment, tag);
}

// --- delete -------------------------------------------------------------------------------------

MINITC_EXPORT_HOT void operator delete(void* ptr) noexcept { g_heap.deallocate(ptr, free_slow); }

MINITC_EXPORT void operator delete(void* ptr, std::align_val_t) noexcept {
  g_heap.deallocate(ptr, free_slow);
}

MINITC_EXPORT void operator delete[](void* ptr) noexcept { ::operator delete(ptr); }
MINITC_EXPORT void operator delete(void* ptr, std::size_t) noexcept { ::operator delete(ptr); }
MINITC_EXPORT void operator delete[](void* ptr, std::size_t) noexcept { ::operator delete[](ptr); }
MINITC_EXPORT void operator delete(void* ptr, const std::nothrow_t&) noexcept {
  ::operator delete(ptr);
}
MINITC_EXPORT void operator delete[](void* ptr, const std::nothrow_t&) noexcept {
  ::operator delete[](ptr);
}

MINITC_EXPORT void operator delete[](void* ptr, std::align_val_t alignment) noexcept {
  ::operator delete(ptr, alignment);
}
MINITC_EXPORT void operator delete(void* ptr, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete(ptr, alignment);
}
MINITC_EXPORT void operator delete[](void* ptr, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete[](ptr, alignment);
}
MINITC_EXPORT void operator delete(void* ptr, std::align_val_t alignment,
                                   const std::nothrow_t&) noexcept {
  ::operator delete(ptr, alignment);
}
MINITC_EXPORT void operator delete[](void* ptr, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  ::operator delete[](ptr, alignment);
}
