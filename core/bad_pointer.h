// What is wrong with a pointer that the program handed back, and how that is said.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/os.h"

namespace MINITC_HIDDEN minitc {

enum class Verdict : std::uint8_t {
  kLive,      // the beginning of an object that is not in the central tier
  kForeign,   // in no object of ours
  kInterior,  // inside an object, not at its beginning
  kFreed,     // at the beginning of an object that is free
  kStale,     // in pages that are free
};

// Where a pointer points. `start` and `bytes` are those of the object around it, for kLive and
// kInterior.
struct Finding {
  Verdict verdict;
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
};

// Which call is to blame, for the message.
enum class Caller : std::uint8_t { kFree, kFreeLate, kRealloc, kUsableSize };

// Says on stderr, in one line, what is wrong with `ptr` and aborts. `finding` is not kLive.
// Caller::kFreeLate: it was freed earlier and is only now leaving the thread cache.
[[noreturn]] MINITC_COLD void die_of_bad_pointer(Caller caller, const void* ptr, Finding finding);

}  // namespace minitc
