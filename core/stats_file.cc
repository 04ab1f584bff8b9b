#include "core/stats_file.h"

#include <string.h>

#include <algorithm>

#include "core/os.h"

namespace minitc {

constinit StatsFile g_stats_file;

void StatsFile::init(const Options& options) {
  if (options.stats_file == nullptr) return;
  options_ = &options;
  memcpy(setting_, kSetting, sizeof(kSetting) - 1);
  memcpy(setting_ + sizeof(kSetting) - 1, options.stats_file, strlen(options.stats_file) + 1);
}

void StatsFile::tick_slow(Heap& heap) {
  if (ticks_.fetch_add(1, std::memory_order_relaxed) % kTickPeriod != 0) return;
  const std::size_t now = monotonic_ms();
  std::size_t due = due_ms_.load(std::memory_order_relaxed);
  if (now < due) return;
  if (!due_ms_.compare_exchange_strong(due, now + options_->stats_interval,
                                       std::memory_order_relaxed))
    return;
  write(heap, "interval");
  due_ms_.store(monotonic_ms() + options_->stats_interval, std::memory_order_relaxed);
}

bool StatsFile::write(Heap& heap, const char* event) {
  if (options_ == nullptr || is_ending_.load(std::memory_order_relaxed)) return false;
  if (is_busy_.exchange(true, std::memory_order_acquire)) return false;
  const bool done = write_line(heap, event);
  is_busy_.store(false, std::memory_order_release);
  return done;
}

void StatsFile::write_last(Heap& heap) {
  if (options_ == nullptr) return;
  is_ending_.store(true, std::memory_order_relaxed);
  for (std::size_t ms = 0; is_busy_.exchange(true, std::memory_order_acquire); ++ms) {
    if (ms == kLastLineWaitMs) return;
    sleep_ms(1);
  }
  write_line(heap, "exit");
}

bool StatsFile::write_line(Heap& heap, const char* event) {
  Snapshot::take(heap, snapshot_);
  length_ = 0;
  if (is_torn_) append("\n", 1);
  report_json(
      snapshot_, event, *options_,
      [](const Text& part, void* file) {
        static_cast<StatsFile*>(file)->append(part.data(), part.size());
      },
      this);
  append("\n", 1);
  const bool done = append_to_file(expand_path(process_id()), line_, length_);
  is_torn_ = !done;
  return done;
}

void StatsFile::append(const char* data, std::size_t bytes) {
  // There is room for all, unless a signal handler forked in the middle of a line and came back.
  bytes = std::min(bytes, sizeof(line_) - length_);
  memcpy(line_ + length_, data, bytes);
  length_ += bytes;
}

const char* StatsFile::expand_path(std::size_t pid) {
  char* out = path_;
  for (const char* in = setting_ + sizeof(kSetting) - 1; *in != '\0'; ++in) {
    if (in[0] != '%' || in[1] != 'p') {
      *out++ = *in;
      continue;
    }
    ++in;
    Text number;
    number << pid;
    memcpy(out, number.data(), number.size());
    out += number.size();
  }
  *out = '\0';
  return path_;
}

}  // namespace minitc
