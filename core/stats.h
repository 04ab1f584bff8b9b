// What the heap holds, where, as numbers that add up; and the reports made of them.
#pragma once

#include <cstddef>

#include "core/heap.h"
#include "core/options.h"
#include "core/text.h"

namespace MINITC_HIDDEN minitc {

// Of one size class, in objects but for `spans`.
struct ClassStats {
  std::size_t spans;
  std::size_t live;           // with the program
  std::size_t thread_cached;  // in thread caches, approximately
  std::size_t central;        // in spans and in the store
  // That left the central tier so far, also in the parent before a fork. What a thread frees and
  // allocates again out of its cache is not counted.
  std::size_t refilled;
  std::size_t pinned;   // free in spans that others keep from going back
  std::size_t pinning;  // those others: with the program, in thread caches or in the store
};

// In bytes unless said otherwise. mapped = live + thread_cached + central + page_heap_free +
// returned, to the byte.
struct Snapshot {
  std::size_t live;            // with the program, in objects rounded up to their class or page
  std::size_t thread_cached;   // in thread caches, approximately while other threads run
  std::size_t central;         // in spans of small objects: free ones and the tails behind the last
  std::size_t page_heap_free;  // committed free runs
  std::size_t returned;        // free runs whose memory the OS has
  std::size_t metadata;        // address space of the allocator's own data
  std::size_t peak;            // largest sum of live, thread_cached and central so far
  std::size_t mapped;
  std::size_t large_bytes;  // the part of live that is large objects
  std::size_t large_count;
  std::size_t free_runs_returned;    // how many runs were returned to the OS so far
  std::size_t large_acquired;        // large objects allocated so far
  std::size_t large_acquired_bytes;  // their sizes when they were
  std::size_t threads;               // that have a cache
  std::size_t pools;                 // region pools
  std::size_t pool_bytes;            // the part of live that pools had at their fullest of late
  ClassStats classes[kNumClasses];

  static void take(Heap& heap, Snapshot& out);
};

// Takes one line, with its newline.
using LineSink = void (*)(const Text& line, void* context);

// The report for people, as MINITC_STATS=1 and malloc_stats() print it.
void report_text(const Snapshot& snapshot, LineSink sink, void* context);
// The same and more as one object of JSON, in pieces, with the process, the time and the options
// but for paths; `event` says why. At most kJsonBytes.
void report_json(const Snapshot& snapshot, const char* event, const Options& options, LineSink sink,
                 void* context);
// All numbers of 20 digits, and for each class names of 130 bytes.
inline constexpr std::size_t kJsonBytes = 2048 + kNumClasses * (8 * 20 + 130);
// The XML of malloc_info().
void report_xml(const Snapshot& snapshot, LineSink sink, void* context);

}  // namespace minitc
