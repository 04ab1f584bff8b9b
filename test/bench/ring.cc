// A first-in first-out ring of objects of mixed sizes: every step frees the oldest object and
// allocates a new one in its place. The sizes are drawn before, so that the loop is malloc and free
// and little else.
//
//   ring [--threads=1] [--least=16] [--most=527] [--call=malloc|calloc]
//        [--count=steps over all threads]
#include <atomic>

#include "bench.h"

namespace {

constexpr std::size_t kSlots = 1024;  // in each thread
constexpr std::size_t kSizes = 1 << 16;

std::uint32_t g_sizes[kSizes];

template <bool kZeroed>
std::uint64_t turn(std::uint64_t count) {
  std::vector<std::uint64_t*> ring(kSlots);
  for (std::uint64_t*& slot : ring) {
    slot = static_cast<std::uint64_t*>(std::calloc(1, g_sizes[0]));
  }
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; i++) {
    std::uint64_t*& slot = ring[i % kSlots];
    sum += *slot;
    std::free(slot);
    const std::uint32_t size = g_sizes[i % kSizes];
    slot = static_cast<std::uint64_t*>(kZeroed ? std::calloc(1, size) : std::malloc(size));
    *slot = i;
  }
  for (std::uint64_t* object : ring) {
    sum += *object;
    std::free(object);
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const auto least = static_cast<std::uint32_t>(options.whole("least", 16));
  const auto most = static_cast<std::uint32_t>(options.whole("most", 527));
  const bool is_zeroed = options.word("call", {"malloc", "calloc"}) == 1;
  const std::uint64_t count = options.scaled("count", 20'000'000) / threads;
  options.finish();
  bench::check(least >= sizeof(std::uint64_t) && least <= most, "a ring needs 8 <= least <= most");

  bench::Random random(1);
  for (std::uint32_t& size : g_sizes) {
    size = random.between(least, most);
  }
  std::atomic<std::uint64_t> total{0};
  bench::run_threads(
      threads, [&](std::size_t) { total += is_zeroed ? turn<true>(count) : turn<false>(count); });
  bench::check(total == count * (count - 1) / 2 * threads,
               "an object does not hold what was written");
  bench::report("checksum", total);
}
