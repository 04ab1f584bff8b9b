// A heap looked at as a whole: each of its spans, and whether its invariants hold.
//
// Thread safety: all functions may be called from any thread. They take the spans a few at a time,
// so that nobody waits long for a lock; what comes and goes meanwhile may be missing.
#pragma once

#include <cstddef>

#include "core/heap.h"

namespace MINITC_HIDDEN minitc {

class Inspection {
 public:
  // Of a small span also how many objects are in it; those of thread caches and of the store are
  // not.
  using Visit = int (*)(const SpanView& span, std::size_t free_objects, void* context);

  // Calls visit(span, free_objects, context) for each span in order of address, with no lock held,
  // until it returns anything but 0, which is then the result.
  static int for_each_span(Heap& heap, Visit visit, void* context);
  // The first invariant that does not hold of any structure or span, or null.
  static const char* violation(Heap& heap);

 private:
  static constexpr std::size_t kBatch = 32;  // spans; a span of the heap is 64 bytes to look at

  template <typename Take>
  static const char* walk(Heap& heap, Take&& take);
};

}  // namespace minitc
