#include "core/bad_pointer.h"

namespace minitc {
namespace {

const char* name_of(Caller caller) {
  switch (caller) {
    case Caller::kFree:
    case Caller::kFreeLate:
      return "free";
    case Caller::kRealloc:
      return "realloc";
    case Caller::kUsableSize:
      return "malloc_usable_size";
  }
  return "?";
}

// What is said once. No code lies at the lowest addresses, so that the class and the verdict of a
// late find do not look like a call site.
std::uintptr_t key_of(Call call, Finding finding) {
  if (call.caller != Caller::kFreeLate) return call.site;
  return call.site * 8 + static_cast<std::uintptr_t>(finding.verdict);
}

}  // namespace

void BadPointers::report(Call call, const void* ptr, Finding finding) {
  if (ignores_ && !is_new(key_of(call, finding))) return;
  const bool is_free = call.caller == Caller::kFree || call.caller == Caller::kFreeLate;
  Text text;
  text << name_of(call.caller) << '(' << ptr << "): ";
  switch (finding.verdict) {
    case Verdict::kInterior:
      text << "interior pointer: the object begins at "
           << reinterpret_cast<const void*>(finding.start) << " and has " << finding.bytes
           << " bytes";
      break;
    case Verdict::kFreed:
      text << (is_free ? "double free" : "stale pointer") << ": the object is already free";
      break;
    case Verdict::kStale:
      text << "stale pointer: its pages are free";
      break;
    default:
      text << "foreign pointer: not allocated by libminitc; "
           << (deepbind_.load(std::memory_order_relaxed)
                   ? "likely by libc's malloc for a plugin loaded with RTLD_DEEPBIND, which "
                     "MINITC_KEEP_DEEPBIND=1 permits"
                   : "stack, static, mapped or another allocator's memory");
      break;
  }
  if (call.caller == Caller::kFreeLate) {
    text << " (found when it left the thread cache; MINITC_CHECK_FREE=1 finds it at the call)";
  }
  if (!ignores_) die(text);
  say(text);
}

// Whether this is the first report with the key, which is then remembered.
bool BadPointers::is_new(std::uintptr_t key) {
  const std::size_t first = key * kGolden / (UINT64_MAX / kSites + 1);
  for (std::size_t i = 0; i < kSites; ++i) {
    std::atomic<std::uintptr_t>& slot = sites_[(first + i) % kSites];
    std::uintptr_t seen = slot.load(std::memory_order_relaxed);
    if (seen == 0 && slot.compare_exchange_strong(seen, key, std::memory_order_relaxed)) {
      return true;
    }
    if (seen == key) return false;
  }
  if (!full_.exchange(true, std::memory_order_relaxed)) {
    say(Text() << "bad pointers at more than " << kSites << " calls; no others are named");
  }
  return false;
}

}  // namespace minitc
