// calloc: objects in a ring, found to be zero where they are looked at, then written to, so that
// they are not zero when their memory is used again.
//
//   zeroed [--threads=1] [--least=16] [--most=1024] [--slots=256 in each thread]
//          [--stride=64: so many bytes apart are the words looked at and written]
//          [--count=objects over all threads]
#include <atomic>

#include "bench.h"

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const auto least = static_cast<std::uint32_t>(options.whole("least", 16));
  const auto most = static_cast<std::uint32_t>(options.whole("most", 1024));
  const std::size_t slots = options.whole("slots", 256);
  const std::size_t stride = options.whole("stride", 64) / sizeof(std::uint64_t);
  const std::uint64_t count = options.scaled("count", 5'000'000) / threads;
  options.finish();
  bench::check(least >= sizeof(std::uint64_t) && least <= most && slots > 0 && stride > 0,
               "wanted: 8 <= least <= most, --slots above 0, --stride 8 or more");

  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    bench::Random random(thread);
    std::vector<std::uint64_t*> ring(slots);
    std::uint64_t made = 0;
    for (std::uint64_t i = 0; i < count; i++) {
      std::uint64_t*& slot = ring[i % slots];
      std::free(slot);
      const std::uint32_t size = random.between(least, most);
      slot = static_cast<std::uint64_t*>(std::calloc(1, size));
      std::uint64_t seen = 0;
      for (std::size_t word = 0; word < size / sizeof(std::uint64_t); word += stride) {
        seen |= slot[word];
        slot[word] = ~std::uint64_t{0};
      }
      bench::check(seen == 0, "calloc's memory is not zero");
      made += size;
    }
    for (std::uint64_t* object : ring) {
      std::free(object);
    }
    total += made;
  });
  bench::report("checksum", total);
}
