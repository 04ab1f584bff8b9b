// A loop that allocates, touches and frees the same amount in pieces: memory that goes back to the
// system in each round comes back from it in the next one.
//
//   hysteresis [--total=64 MiB] [--piece=64 KiB] [--seconds=5]
#include <sys/resource.h>

#include "watched.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kPage = 4096;
constexpr double kWarmUp = 0.2;  // of the time

struct Cost {
  Clock::time_point at = Clock::now();
  std::uint64_t user_us = 0, system_us = 0, faults = 0;

  Cost() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    user_us = microseconds(usage.ru_utime);
    system_us = microseconds(usage.ru_stime);
    faults = static_cast<std::uint64_t>(usage.ru_minflt);
  }

 private:
  static std::uint64_t microseconds(const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
           static_cast<std::uint64_t>(time.tv_usec);
  }
};

std::uint64_t one_round(std::vector<char*>& pieces, std::uint64_t size) {
  std::uint64_t touched = 0;
  for (char*& piece : pieces) {
    piece = static_cast<char*>(std::malloc(size));
    bench::check(piece != nullptr, "out of memory");
    for (std::uint64_t i = 0; i < size; i += kPage, touched++) {
      piece[i] = static_cast<char>(touched);
    }
  }
  touched = 0;
  for (char* piece : pieces) {
    for (std::uint64_t i = 0; i < size; i += kPage, touched++) {
      bench::check(piece[i] == static_cast<char>(touched),
                   "a piece does not hold what was written");
    }
    std::free(piece);
  }
  return touched;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  bench::Watched watched(options);
  const std::uint64_t size = options.whole("piece", 64) << 10;
  const std::uint64_t total = options.scaled("total", 64) << 20;
  const std::uint64_t seconds = options.whole("seconds", 5);
  options.finish();
  bench::check(size > 0 && total >= size, "--piece must be above 0 and no larger than --total");

  std::vector<char*> pieces(total / size);
  watched.add(static_cast<std::int64_t>(size * pieces.size()));
  const Cost begin;
  Cost warm;
  std::uint64_t rounds = 0, touched = 0;
  const auto seconds_since = [](const Cost& cost) {
    return std::chrono::duration<double>(Clock::now() - cost.at).count();
  };
  while (seconds_since(begin) < kWarmUp * static_cast<double>(seconds)) {
    touched = one_round(pieces, size);
    warm = Cost();
  }
  while (seconds_since(begin) < static_cast<double>(seconds) || rounds == 0) {
    touched = one_round(pieces, size);
    rounds++;
  }
  const Cost end;
  bench::report("checksum", touched);
  // Of the time after the warming up.
  bench::report("rounds", rounds);
  bench::report("wall_us",
                static_cast<std::uint64_t>(
                    std::chrono::duration<double, std::micro>(end.at - warm.at).count()));
  bench::report("user_us", end.user_us - warm.user_us);
  bench::report("system_us", end.system_us - warm.system_us);
  bench::report("faults", end.faults - warm.faults);
}
