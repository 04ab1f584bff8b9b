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

}  // namespace

void die_of_bad_pointer(Caller caller, const void* ptr, Finding finding) {
  const bool is_free = caller == Caller::kFree || caller == Caller::kFreeLate;
  Text text;
  text << name_of(caller) << '(' << ptr << "): ";
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
      text << "foreign pointer: not allocated by libminitc; stack, static, mapped or another "
              "allocator's memory, perhaps a plugin loaded with RTLD_DEEPBIND";
      break;
  }
  if (caller == Caller::kFreeLate) {
    text << " (found when it left the thread cache; MINITC_CHECK_FREE=1 finds it at the call)";
  }
  die(text);
}

}  // namespace minitc
