// MINITC_STATS_FILE: lines of JSON for programs that watch this one, written by the threads that
// allocate. The file is opened for each line: a program may close all files, and one of its own may
// get the number.
//
// Thread safety: all methods by any thread. Who finds another thread at work on a line goes on.
#pragma once

#include <atomic>
#include <cstddef>

#include "core/base.h"
#include "core/config.h"
#include "core/heap.h"
#include "core/options.h"
#include "core/stats.h"

namespace MINITC_HIDDEN minitc {

class StatsFile {
 public:
  constexpr StatsFile() = default;
  // `options` must stay.
  void init(const Options& options);

  // Writes a line if it is time. Outside all critical sections.
  void tick(Heap& heap) {
    if (options_ != nullptr) [[unlikely]]
      tick_slow(heap);
  }
  // Writes a line; `event` says why. False if there is no file, if it cannot be written, or if
  // another thread is at work on a line.
  bool write(Heap& heap, const char* event);
  // Writes the line of the process's exit, and none is written after it: the kernel ends the other
  // threads wherever they are, also in the middle of a line.
  void write_last(Heap& heap);
  // A thread that is not in the child may have been at work.
  void after_fork_in_child() {
    is_busy_.store(false, std::memory_order_relaxed);
    is_ending_.store(false, std::memory_order_relaxed);
  }

 private:
  static constexpr char kSetting[] = "MINITC_STATS_FILE=";
  // %p becomes a number of at most 8 digits: 2^22 is the kernel's largest.
  static constexpr std::size_t kPathBytes = 4 * kMaxStatsPath + 1;

  MINITC_COLD void tick_slow(Heap& heap);
  // By who has set is_busy_.
  bool write_line(Heap& heap, const char* event);
  void append(const char* data, std::size_t bytes);
  const char* expand_path(std::size_t pid);

  // Constant after init. All is zero before, so that it takes no memory until it is used.
  const Options* options_ = nullptr;  // null: there is no file
  // As it stood in the environment, MINITC_STATS_FILE=PATH, which the program may overwrite:
  // whoever watches the process looks for it here.
  char setting_[sizeof(kSetting) + kMaxStatsPath] = {};

  std::atomic<std::uint32_t> ticks_{0};
  std::atomic<std::size_t> due_ms_{0};
  std::atomic<bool> is_ending_{false};  // so that nobody begins while the last line waits
  std::atomic<bool> is_busy_{false};    // who sets it has what follows
  bool is_torn_ = false;                // the last line may have been cut
  Snapshot snapshot_ = {};
  char path_[kPathBytes] = {};
  std::size_t length_ = 0;
  char line_[kJsonBytes + 2] = {};  // with one that ends a torn line, and its own end
};

extern constinit StatsFile g_stats_file;

}  // namespace minitc
