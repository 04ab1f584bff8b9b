// Sizes and lifetimes that follow Pareto's law: most objects are small and die young, a few are
// large or live long. An object's lifetime is a number of steps; a calendar says what dies when.
//
//   pareto [--threads=1] [--count=objects over all threads]
#include <atomic>
#include <cmath>

#include "bench.h"

namespace {

constexpr std::uint32_t kDraws = 1 << 14;
constexpr std::uint32_t kCalendar = 1 << 18;  // the longest life, in steps

struct Object {
  Object* next;  // dies in the same step
  std::uint64_t size;
};

std::uint32_t g_sizes[kDraws];
std::uint32_t g_lives[kDraws];

// The distribution's values at evenly spaced probabilities: drawing one at random draws from it.
void fill(std::uint32_t (&table)[kDraws], double least, double most, double shape) {
  for (std::uint32_t i = 0; i < kDraws; i++) {
    const double rest = (i + 0.5) / kDraws;
    table[i] = static_cast<std::uint32_t>(std::fmin(least * std::pow(rest, -1 / shape), most));
  }
}

std::uint64_t free_all(Object* object) {
  std::uint64_t bytes = 0;
  while (object != nullptr) {
    Object* next = object->next;
    bytes += object->size;
    std::free(object);
    object = next;
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const std::uint64_t count = options.scaled("count", 8'000'000) / threads;
  options.finish();
  fill(g_sizes, 16, 256 << 10, 1.0);
  fill(g_lives, 100, kCalendar - 1, 0.5);

  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    bench::Random random(thread);
    std::vector<Object*> calendar(kCalendar);
    std::uint64_t made = 0, freed = 0;
    for (std::uint64_t step = 0; step < count; step++) {
      Object*& today = calendar[step % kCalendar];
      freed += free_all(today);
      today = nullptr;
      const std::uint32_t size = g_sizes[random.below(kDraws)];
      Object*& then = calendar[(step + g_lives[random.below(kDraws)]) % kCalendar];
      auto* object = static_cast<Object*>(std::malloc(size));
      *object = {then, size};
      then = object;
      made += size;
    }
    for (Object* objects : calendar) {
      freed += free_all(objects);
    }
    bench::check(made == freed, "an object does not hold what was written");
    total += made;
  });
  bench::report("checksum", total);
}
