// The slowest malloc: one thread times every one of its mallocs, while another frees many more
// objects than any cache holds.
//
//   latency [--mallocs=1000000] [--frees=10000000]      --scale holds for both
//
// Reports slowest_ns, and the time that all but 1 in 1,000 and 1 in 10,000 calls stay below. The
// clock is the wall's: a thread that waits for a lock is waiting, and so is one that waits for a
// processor. On fewer than two idle processors the figures mean nothing.
#include <algorithm>
#include <atomic>
#include <ctime>

#include "bench.h"

namespace {

struct Object {
  std::uint64_t number;
};

std::uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

Object* make(bench::Random& random, std::uint64_t number) {
  auto* object = static_cast<Object*>(std::malloc(random.between(16, 128)));
  *object = {number};
  return object;
}

std::uint64_t drop_all(const std::vector<Object*>& objects) {
  for (std::size_t i = 0; i < objects.size(); i++) {
    bench::check(objects[i]->number == i, "an object does not hold what was written");
    std::free(objects[i]);
  }
  return objects.size();
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t mallocs = options.scaled("mallocs", 1'000'000);
  const std::size_t frees = options.scaled("frees", 10'000'000);
  options.finish();

  // All pages of these are touched before the clock runs.
  std::vector<Object*> theirs(frees), mine(mallocs);
  std::vector<std::uint32_t> times_ns(mallocs, 1);
  bench::Random random(1);
  for (std::size_t i = 0; i < frees; i++) {
    theirs[i] = make(random, i);
  }
  std::atomic<bool> has_begun{false};
  std::uint64_t total = 0;
  std::thread other([&] {
    has_begun = true;
    total = drop_all(theirs);
  });
  while (!has_begun) {
  }
  for (std::size_t i = 0; i < mallocs; i++) {
    const std::uint64_t begin = now_ns();
    mine[i] = make(random, i);
    times_ns[i] = static_cast<std::uint32_t>(std::min<std::uint64_t>(now_ns() - begin, UINT32_MAX));
  }
  other.join();
  total += drop_all(mine);
  std::sort(times_ns.begin(), times_ns.end());
  bench::report("checksum", total);
  bench::report("slowest_ns", times_ns.back());
  bench::report("p9999_ns", times_ns[mallocs - 1 - mallocs / 10'000]);
  bench::report("p999_ns", times_ns[mallocs - 1 - mallocs / 1000]);
}
