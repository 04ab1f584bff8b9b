// What is wrong with a pointer that the program handed back, how that is said, and whether the
// program goes on.
#pragma once

#include <atomic>
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

// Which function is to blame. kFreeLate: free, some time ago; the pointer is only now leaving the
// thread cache.
enum class Caller : std::uint8_t { kFree, kFreeLate, kRealloc, kUsableSize };

// A call by the program. `site` tells such calls apart: the address that it returns to; of
// kFreeLate, whose call is long over, the size class.
struct Call {
  Caller caller;
  std::uintptr_t site = 0;
};

// Thread safety: init() comes first; the rest may be called from any thread, at any time, also from
// signal handlers, and waits for nobody.
class BadPointers {
 public:
  constexpr BadPointers() = default;
  void init(bool ignore) { ignores_ = ignore; }
  // Whether the program goes on after report().
  bool ignored() const { return ignores_; }
  // From now on a plugin may use libc's malloc, since it was loaded with RTLD_DEEPBIND.
  void expect_deepbind() { deepbind_.store(true, std::memory_order_relaxed); }

  // Says on stderr, in one line, what is wrong with `ptr`; `finding` is not kLive. Then it aborts,
  // or, if bad pointers are ignored, returns. It then says so once per site; of kFreeLate, once
  // per size class and verdict.
  MINITC_COLD void report(Call call, const void* ptr, Finding finding);

 private:
  static constexpr std::size_t kSites = 256;

  bool is_new(std::uintptr_t key);

  bool ignores_ = false;
  std::atomic<bool> deepbind_{false};
  std::atomic<bool> full_{false};                // and that was said
  std::atomic<std::uintptr_t> sites_[kSites]{};  // a hash table: keys of what was said, 0 is none
};

}  // namespace minitc
