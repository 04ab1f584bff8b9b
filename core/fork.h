// What keeps the heap usable on both sides of fork().
#pragma once

#include "core/heap.h"

namespace MINITC_HIDDEN minitc {

// Holds all locks of a heap between pthread_atfork's handlers, so that the child finds nothing half
// done. In between, the forking thread may allocate: other libraries' handlers do.
class ForkHold {
 public:
  static void prepare(Heap& heap);
  static void parent(Heap& heap);
  // Only the forking thread lives on: the other threads' caches, which may have been caught in the
  // middle of a change, are dropped with the objects in them, and their budget is free again.
  static void child(Heap& heap);
};

}  // namespace minitc
