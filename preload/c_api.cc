// The C functions: argument rules, errno, and the choice between heap and bootstrap arena.
// Semantics are those of C23 and POSIX.1-2024, and of glibc 2.36 where it differs: programs were
// tested with it.

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/auxv.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/heap.h"
#include "core/stats.h"
#include "core/stats_file.h"
#include "preload/bootstrap_arena.h"
#include "preload/glibc_malloc.h"
#include "preload/init.h"
#include "preload/interface.h"

namespace minitc {

void* allocate_or_null(std::size_t bytes) {
  if (bytes > PTRDIFF_MAX) return nullptr;
  if (!heap_is_usable()) return bootstrap_allocate(bytes, kMinAlign);
  void* const object = g_heap.allocate_slow(bytes);
  g_stats_file.tick(g_heap);
  return object;
}

void* allocate_aligned_or_null(std::size_t alignment, std::size_t bytes) {
  if (!is_power_of_two(alignment) || alignment > PTRDIFF_MAX || bytes > PTRDIFF_MAX) return nullptr;
  if (!heap_is_usable()) return bootstrap_allocate(bytes, alignment);
  void* const object = g_heap.allocate_aligned(bytes, alignment);
  g_stats_file.tick(g_heap);
  return object;
}

MINITC_COLD void free_slow(void* ptr) {
  if (ptr == nullptr) return;
  if (bootstrap_owns(ptr)) return bootstrap_deallocate(ptr);
  // Not usable: in a signal handler that interrupted the heap. The object is lost.
  if (!heap_is_usable()) return;
  g_heap.deallocate_slow(ptr, call_site());
  g_stats_file.tick(g_heap);
}

MINITC_OWN("malloc") void* own_malloc(std::size_t bytes) noexcept;
// The address that the loader chose may be the program's or another preload's.
bool malloc_is_ours() { return ::malloc == own_malloc; }

namespace {

// errno may only be written once libc is up; before, and on success, it stays what it was.
void* or_enomem(void* object) {
  if (object == nullptr && g_stage.load(std::memory_order_relaxed) == Stage::kReady) {
    errno = ENOMEM;
  }
  return object;
}

MINITC_COLD void* malloc_slow(std::size_t bytes) { return or_enomem(allocate_or_null(bytes)); }

MINITC_COLD void* calloc_slow(std::size_t bytes) {
  if (bytes > PTRDIFF_MAX) return or_enomem(nullptr);
  if (!heap_is_usable()) return or_enomem(bootstrap_allocate_zeroed(bytes));
  void* const object = g_heap.allocate_zeroed(bytes);
  g_stats_file.tick(g_heap);
  return or_enomem(object);
}

// Clears `bytes` or more of an object of class `cls` and returns it. A few stores cost half of a
// call.
MINITC_HOT void* clear(void* object, unsigned cls, std::size_t bytes) {
  struct Block {  // of 16 bytes
    [[gnu::vector_size(16), gnu::may_alias]] typedef long long Zeros;
  };
  Block::Zeros* const blocks = static_cast<Block::Zeros*>(object);
  if (cls > class_of(48)) {
    if (cls > class_of(64)) return __builtin_memset(object, 0, bytes);
    blocks[3] = Block::Zeros{};
  } else if (cls < class_of(48)) {
    if (cls == class_of(8)) return __builtin_memset(object, 0, 8);
    blocks[0] = Block::Zeros{};
    if (cls > class_of(16)) blocks[1] = Block::Zeros{};
    return object;
  }
  blocks[0] = blocks[1] = blocks[2] = Block::Zeros{};
  return object;
}

// As realloc().
void* resize(void* ptr, std::size_t bytes, std::uintptr_t site) {
  if (ptr == nullptr) return g_heap.allocate(bytes, malloc_slow);
  if (bytes > PTRDIFF_MAX) return or_enomem(nullptr);
  if (!bootstrap_owns(ptr)) {
    // Not usable: in a signal handler that interrupted the heap, where nothing can be looked up.
    if (!heap_is_usable()) return or_enomem(nullptr);
    void* const object = g_heap.resize(ptr, bytes, site);
    g_stats_file.tick(g_heap);
    if (object != nullptr || bytes == 0) return object;
    if (g_heap.find(ptr).verdict == Verdict::kLive) return or_enomem(nullptr);
    errno = EINVAL;  // a bad pointer, and bad pointers are ignored
    return nullptr;
  }
  if (bytes == 0) {
    bootstrap_deallocate(ptr);
    return nullptr;
  }
  void* const object = g_heap.allocate(bytes, malloc_slow);
  if (object == nullptr) return nullptr;
  bootstrap_copy(object, ptr, std::min(bytes, bootstrap_usable_size(ptr)));
  bootstrap_deallocate(ptr);
  return object;
}

// As memalign().
void* align(std::size_t alignment, std::size_t bytes) {
  if (alignment <= kGrain) return g_heap.allocate(bytes, malloc_slow);
  if (alignment > SIZE_MAX / 2 + 1) {
    errno = EINVAL;
    return nullptr;
  }
  return or_enomem(allocate_aligned_or_null(std::bit_ceil(alignment), bytes));
}

std::size_t page_bytes() { return getauxval(AT_PAGESZ); }

void put_line(const Text& line, void* stream) {
  fwrite(line.data(), 1, line.size(), static_cast<FILE*>(stream));
}

}  // namespace
}  // namespace minitc

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

extern "C" {

// --- malloc, free and their other names ---------------------------------------------------------

// C23 7.24.3.6. 0 bytes give an object of its own.
MINITC_EXPORT_HOT void* malloc(std::size_t bytes) noexcept {
  return g_heap.allocate(bytes, malloc_slow);
}

// C23 7.24.3.3; leaves errno alone (POSIX.1-2024).
MINITC_EXPORT_HOT void free(void* ptr) noexcept { g_heap.deallocate(ptr, free_slow); }

MINITC_ALIAS("free") void cfree(void* ptr) noexcept;

// C23 7.24.3.4, .5: sizes and alignments are hints that programs get wrong, and are not looked at.
// Through the dynamic symbol: a program that has its own free(), but not these, frees its own.
MINITC_EXPORT void free_sized(void* ptr, std::size_t /*bytes*/) noexcept { ::free(ptr); }
MINITC_EXPORT void free_aligned_sized(void* ptr, std::size_t /*alignment*/,
                                      std::size_t /*bytes*/) noexcept {
  ::free(ptr);
}

// C23 7.24.3.2.
MINITC_EXPORT_HOT void* calloc(std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) bytes = SIZE_MAX;
  return g_heap.allocate(bytes, calloc_slow,
                         [bytes](void* object, unsigned cls) { return clear(object, cls, bytes); });
}

// --- realloc ------------------------------------------------------------------------------------

// C23 7.24.3.7. As glibc: 0 bytes free the object and give null. Every byte that
// malloc_usable_size() granted is kept, as far as the new size reaches.
MINITC_EXPORT void* realloc(void* ptr, std::size_t bytes) noexcept {
  return resize(ptr, bytes, call_site());
}

// glibc; POSIX.1-2024. Through the dynamic symbol, as in glibc: a program that has its own
// realloc() has it called here too, and so does valgrind, which knows no reallocarray(). Before the
// start the symbol may not be bound.
MINITC_EXPORT void* reallocarray(void* ptr, std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return or_enomem(nullptr);
  const bool is_bound = g_stage.load(std::memory_order_relaxed) == Stage::kReady;
  return is_bound ? ::realloc(ptr, bytes) : resize(ptr, bytes, call_site());
}

// --- Aligned ------------------------------------------------------------------------------------

// glibc 2.36: any alignment is rounded up to a power of two; EINVAL where that overflows.
MINITC_EXPORT void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  return align(alignment, bytes);
}

// C23 7.24.3.1; as glibc 2.36 lenient: memalign().
MINITC_ALIAS("memalign") void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept;

// POSIX: the error is the result, errno and *out are left alone.
MINITC_EXPORT int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  if (!is_power_of_two(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  void* const object = allocate_aligned_or_null(alignment, bytes);
  if (object == nullptr) return ENOMEM;
  *out = object;
  return 0;
}

// BSD: page-aligned.
MINITC_EXPORT void* valloc(std::size_t bytes) noexcept { return align(page_bytes(), bytes); }

// BSD: page-aligned and rounded up to whole pages.
MINITC_EXPORT void* pvalloc(std::size_t bytes) noexcept {
  const std::size_t page = page_bytes();
  if (bytes > PTRDIFF_MAX - page) return or_enomem(nullptr);
  return align(page, align_up(bytes, page));
}

// --- glibc's own names --------------------------------------------------------------------------

MINITC_ALIAS("malloc") void* __libc_malloc(std::size_t bytes) noexcept;
MINITC_ALIAS("free") void __libc_free(void* ptr) noexcept;
MINITC_ALIAS("calloc") void* __libc_calloc(std::size_t count, std::size_t size) noexcept;
MINITC_ALIAS("realloc") void* __libc_realloc(void* ptr, std::size_t bytes) noexcept;
MINITC_ALIAS("memalign") void* __libc_memalign(std::size_t alignment, std::size_t bytes) noexcept;
MINITC_ALIAS("valloc") void* __libc_valloc(std::size_t bytes) noexcept;
MINITC_ALIAS("pvalloc") void* __libc_pvalloc(std::size_t bytes) noexcept;
MINITC_ALIAS("posix_memalign")
int __posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept;

// --- Questions and reports (glibc) ---------------------------------------------------------------

// The bytes that may be used, constant for the object's life; 0 for null.
MINITC_EXPORT std::size_t malloc_usable_size(void* ptr) noexcept {
  if (const std::size_t small = g_heap.small_size(ptr); small != 0) return small;
  if (ptr == nullptr) return 0;
  if (bootstrap_owns(ptr)) return bootstrap_usable_size(ptr);
  return heap_is_usable() ? g_heap.usable_size(ptr, call_site()) : 0;
}

// Gives free memory back to the OS; the bytes to keep are not looked at. 1 if any was given back.
MINITC_EXPORT int malloc_trim(std::size_t /*keep_bytes*/) noexcept {
  return heap_is_usable() && g_heap.trim() != 0 ? 1 : 0;
}

// glibc's parameters have no meaning here: accepted (1) and without effect.
MINITC_EXPORT int mallopt(int /*parameter*/, int /*value*/) noexcept { return 1; }

// Prints the report of MINITC_STATS=1 to stderr.
MINITC_EXPORT void malloc_stats(void) noexcept {
  if (heap_is_usable()) print_report();
}

// Writes the report as XML. EINVAL if options is not 0.
MINITC_EXPORT int malloc_info(int options, FILE* stream) noexcept {
  if (options != 0 || !heap_is_usable()) return EINVAL;
  Snapshot snapshot;
  Snapshot::take(g_heap, snapshot);
  report_xml(snapshot, put_line, stream);
  return 0;
}

// arena = uordblks + fordblks: small objects and all that is free; hblkhd: large objects.
MINITC_EXPORT struct mallinfo2 mallinfo2(void) noexcept {
  struct mallinfo2 info = {};
  if (!heap_is_usable()) return info;
  Snapshot s;
  Snapshot::take(g_heap, s);
  info.arena = s.mapped - s.large_bytes;
  info.hblks = s.large_count;
  info.hblkhd = s.large_bytes;
  info.uordblks = s.live - s.large_bytes;
  info.fordblks = info.arena - info.uordblks;
  info.keepcost = s.page_heap_free;
  return info;
}

// The same in ints; what does not fit is INT_MAX.
MINITC_EXPORT struct mallinfo mallinfo(void) noexcept {
  const struct mallinfo2 wide = mallinfo2();
  const auto clamp = [](std::size_t n) {
    return static_cast<int>(std::min<std::size_t>(n, INT_MAX));
  };
  struct mallinfo info = {};
  info.arena = clamp(wide.arena);
  info.hblks = clamp(wide.hblks);
  info.hblkhd = clamp(wide.hblkhd);
  info.uordblks = clamp(wide.uordblks);
  info.fordblks = clamp(wide.fordblks);
  info.keepcost = clamp(wide.keepcost);
  return info;
}

}  // extern "C"
