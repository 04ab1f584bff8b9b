// Start and end of the library's life in a process.
#pragma once

#include <atomic>

#include "core/base.h"
#include "core/lock.h"
#include "core/options.h"

namespace MINITC_HIDDEN minitc {

// Not 0 at first: what the start writes then lies in .data, in one page with the options.
enum class Stage : unsigned char { kCold = 1, kStarting, kReady };
extern std::atomic<Stage> g_stage;

// Constant once the stage is kReady.
extern Options g_options;

// Prints the report of MINITC_STATS=1 to stderr.
void print_report();

// As pthread_atfork, for as long as the process lives: when the program ends other threads, and
// other libraries' destructors, may still fork.
int register_for_good(void (*prepare)(), void (*parent)(), void (*child)());

// Tries to make the heap ready; whether it is.
MINITC_COLD bool start_heap();

// Whether the heap may be called here and now. If not, the bootstrap arena has to serve.
inline bool heap_is_usable() {
  if (g_stage.load(std::memory_order_acquire) != Stage::kReady && !start_heap()) return false;
  return !inside_critical_section();
}

}  // namespace minitc
