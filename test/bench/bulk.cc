// Many objects allocated in a row, then all freed: the last first, the first first, or at random.
//
//   bulk [--threads=1] [--order=lifo|fifo|random] [--least=16] [--most=256]
//        [--objects=100000 at a time in each thread] [--count=objects over all threads]
#include <atomic>
#include <utility>

#include "bench.h"

namespace {

enum Order { kLifo, kFifo, kRandom };

struct Object {
  std::uint64_t number;
  std::uint64_t size;
};

// The order in which to free: places of the objects.
std::vector<std::uint32_t> places(std::size_t order, std::uint32_t objects) {
  std::vector<std::uint32_t> result(objects);
  for (std::uint32_t i = 0; i < objects; i++) {
    result[i] = order == kLifo ? objects - 1 - i : i;
  }
  bench::Random random(2);
  for (std::uint32_t i = objects; order == kRandom && i > 1; i--) {
    std::swap(result[i - 1], result[random.below(i)]);
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const std::size_t order = options.word("order", {"lifo", "fifo", "random"});
  const auto least = static_cast<std::uint32_t>(options.whole("least", 16));
  const auto most = static_cast<std::uint32_t>(options.whole("most", 256));
  const auto objects = static_cast<std::uint32_t>(options.whole("objects", 100'000));
  const std::uint64_t rounds = options.scaled("count", 4'000'000) / threads / objects + 1;
  options.finish();
  bench::check(objects > 0, "--objects must not be 0");
  bench::check(least >= sizeof(Object) && least <= most, "the sizes must be 16 <= least <= most");

  const std::vector<std::uint32_t> order_of_frees = places(order, objects);
  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    bench::Random random(thread);
    std::vector<Object*> table(objects);
    std::uint64_t made = 0, freed = 0;
    for (std::uint64_t round = 0; round < rounds; round++) {
      for (std::uint32_t i = 0; i < objects; i++) {
        const std::uint32_t size = random.between(least, most);
        table[i] = static_cast<Object*>(std::malloc(size));
        *table[i] = {i, size};
        made += size;
      }
      for (const std::uint32_t i : order_of_frees) {
        bench::check(table[i]->number == i, "an object does not hold what was written");
        freed += table[i]->size;
        std::free(table[i]);
      }
    }
    bench::check(made == freed, "not all that was allocated was freed");
    total += made;
  });
  bench::report("checksum", total);
}
