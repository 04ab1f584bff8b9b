// A peak, and what is left of it: threads allocate objects of mixed sizes, then free them in
// another order, all but one in --keep. After that the threads wait, and the first one does a
// little work.
//
//   peak [--threads=8] [--peak=1024 MiB] [--keep=1000, 0: none] [--seconds=31 of the little work]
//
// Stages: 1 at the peak, 2 when all is freed.
#include <barrier>

#include "watched.h"

namespace {

constexpr std::size_t kLists = 64;
constexpr std::uint64_t kPauseMs = 100;
constexpr std::uint64_t kPeakMs = 500;  // that long the peak lasts

using Lists = bench::List[kLists];

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  bench::Watched watched(options);
  const std::size_t threads = options.threads(8);
  const std::uint64_t bytes = (options.scaled("peak", 1024) << 20) / threads;
  const std::uint64_t keep = options.whole("keep", 1000);
  const std::uint64_t seconds = options.whole("seconds", 31);
  options.finish();

  std::vector<Lists> lists(threads);
  std::vector<std::uint64_t> freed(threads);
  std::barrier together(static_cast<std::ptrdiff_t>(threads));
  bench::run_threads(threads, [&](std::size_t self) {
    // At random into lists, which are freed one by one: the frees lie as far apart as in a program
    // that has no order.
    bench::Random random(self);
    std::uint64_t mine = 0;
    while (mine < bytes) {
      const std::uint32_t size = bench::mixed_size(random);
      lists[self][random.below(kLists)].push(bench::make(size));
      watched.add(size);
      mine += size;
    }
    together.arrive_and_wait();
    if (self == 0) {
      watched.reach(1);
      watched.write_report();
      bench::sleep_ms(kPeakMs);
    }
    together.arrive_and_wait();

    // Every other list is a neighbour's.
    bench::List kept;
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kLists; i++) {
      bench::List& list = lists[(self + i % 2) % threads][i];
      while (bench::Object* object = list.pop()) {
        if (keep != 0 && seen++ % keep == 0) {
          kept.push(object);
        } else {
          const std::uint32_t size = drop(object);
          freed[self] += size;
          watched.add(-std::int64_t{size});
        }
      }
    }
    together.arrive_and_wait();
    if (self == 0) {
      watched.reach(2);
      for (std::uint64_t ms = 0; ms < seconds * 1000; ms += kPauseMs) {
        for (int i = 0; i < 100; i++) {
          freed[self] += drop(bench::make(bench::mixed_size(random)));
        }
        bench::sleep_ms(kPauseMs);
      }
      watched.reach(bench::Watched::kEnd);
    }
    together.arrive_and_wait();
    while (bench::Object* object = kept.pop()) {
      freed[self] += drop(object);
    }
  });
  std::uint64_t total = 0;
  for (const std::uint64_t some : freed) {
    total += some;
  }
  bench::report("checksum", total);
}
