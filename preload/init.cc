#include "preload/init.h"

#include <pthread.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "core/fork.h"
#include "core/heap.h"
#include "core/options.h"
#include "core/os.h"
#include "core/stats.h"
#include "core/stats_file.h"
#include "preload/interface.h"
#include "preload/minitc.h"

namespace minitc {

std::atomic<Stage> g_stage{Stage::kCold};
Options g_options;

namespace {

// Holds its own address once the loader has relocated this library: only then may anything be
// called or read through the GOT. Before, it holds 0 or the address it was linked at. Volatile, or
// the compiler would know better.
const volatile void* volatile relocation_probe = &relocation_probe;
bool awaits_constructors = true;

// glibc's fork takes the lock of stdio's list of streams after the handlers ran. Who holds that
// lock may wait for a stream, and who holds a stream may wait for memory: it has to come before our
// locks. It may be taken twice by one thread. Absent from other libcs.
// NOLINTBEGIN(readability-identifier-naming): glibc's names
extern "C" {
[[gnu::weak]] void _IO_list_lock();
[[gnu::weak]] void _IO_list_unlock();
[[gnu::weak]] void _IO_list_resetlock();
// glibc 2.32: not 0 while no second thread has been started.
[[gnu::weak]] extern char __libc_single_threaded;
}
// NOLINTEND(readability-identifier-naming)

// A process of one thread, as a shell is, has nothing to wait for, and nothing that the child would
// have to put right. To take all locks writes to ten pages, which both sides would have to copy.
bool is_held_for_fork = false;  // written by who holds the heap

void before_fork() {
  if (&__libc_single_threaded != nullptr && __libc_single_threaded != 0) return;
  if (_IO_list_lock != nullptr) _IO_list_lock();
  ForkHold::prepare(g_heap);
  is_held_for_fork = true;
}

void after_fork_in_parent() {
  if (!is_held_for_fork) return;
  is_held_for_fork = false;
  ForkHold::parent(g_heap);
  if (_IO_list_unlock != nullptr) _IO_list_unlock();
}

void after_fork_in_child() {
  if (is_held_for_fork) ForkHold::child(g_heap);
  g_stats_file.after_fork_in_child();
  if (is_held_for_fork && _IO_list_resetlock != nullptr) _IO_list_resetlock();
  is_held_for_fork = false;
}

// Shared runtimes of sanitizers, which bring a malloc of their own and expect to be first.
// AddressSanitizer's looks after that itself.
// NOLINTBEGIN(readability-identifier-naming): their names
extern "C" {
[[gnu::weak]] void __lsan_init();
[[gnu::weak]] void __tsan_init();
}
// NOLINTEND(readability-identifier-naming)

void warn_of_idle_sanitizer() {
  if ((__lsan_init == nullptr && __tsan_init == nullptr) || !malloc_is_ours()) return;
  say(Text() << "a sanitizer's runtime comes behind libminitc.so, and what it reports is wrong: "
                "name it first in LD_PRELOAD");
}

}  // namespace

// The heap starts at the first call that finds the process ready for it: this library relocated,
// the main thread's TLS in place, libc initialised (which sets environ). A call during the start,
// from the functions called below or from another thread, is served by the bootstrap arena.
bool start_heap() {
  if (relocation_probe != &relocation_probe || t_cache == nullptr) return false;
  if (environ == nullptr && awaits_constructors) return false;
  Stage expected = Stage::kCold;
  if (!g_stage.compare_exchange_strong(expected, Stage::kStarting)) {
    return expected == Stage::kReady;
  }

  mute_if_stderr_is_closed();
  if (getauxval(AT_SECURE) == 0) parse_options(environ, g_options, say);
  g_heap.init(kernel_os(), g_options);
  g_stats_file.init(g_options);
  g_stage.store(Stage::kReady, std::memory_order_release);
  g_heap.open();

  // As early as can be: handlers registered later run their prepare before ours and the rest after.
  register_for_good(before_fork, after_fork_in_parent, after_fork_in_child);
  warn_of_idle_sanitizer();
  if (g_options.verbose != 0) {
    Text text;
    text << minitc_version();
    describe_options(g_options, text);
    say(text);
  }
  return true;
}

void print_report() {
  Snapshot snapshot;
  Snapshot::take(g_heap, snapshot);
  report_text(
      snapshot, [](const Text& line, void*) { print_line(line); }, nullptr);
}

namespace {

[[gnu::constructor]] void start_at_load() {
  awaits_constructors = false;
  heap_is_usable();
}

[[gnu::destructor]] void report_at_end() {
  // Not where a signal handler ends the program in the middle of a change.
  if (!heap_is_usable()) return;
  g_stats_file.write_last(g_heap);
  if (g_options.stats != 0) print_report();
}

}  // namespace
}  // namespace minitc
