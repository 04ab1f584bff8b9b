// False sharing: each thread writes often to a small object of its own. It is slow where the malloc
// has put objects of several threads into one cache line.
//
//   sharing [--threads=2] [--way=active|passive] [--size=8] [--writes=500 to each object]
//           [--count=objects over all threads]
//
// active:  the threads allocate at the same time.
// passive: the main thread has allocated a few objects in a row, and each thread frees one of them
//          before it allocates. A malloc that then gives each thread its neighbour's line back
//          keeps the sharing going.
#include <atomic>

#include "bench.h"

namespace {

// Not optimised into one write: what costs is that the line is fetched for each.
std::uint64_t write_often(volatile unsigned char* bytes, std::uint64_t writes) {
  *bytes = 0;
  std::uint64_t last = 0;
  for (std::uint64_t i = 0; i < writes; i++) {
    last = *bytes;
    *bytes = static_cast<unsigned char>(last + 1);
  }
  return *bytes == static_cast<unsigned char>(writes) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const bool is_passive = options.word("way", {"active", "passive"}) == 1;
  const std::size_t size = options.whole("size", 8);
  const std::uint64_t writes = options.whole("writes", 500);
  const std::uint64_t count = options.scaled("count", 400'000) / threads;
  options.finish();
  bench::check(size > 0, "--size must not be 0");

  std::vector<void*> handed(threads);
  for (void*& object : handed) {
    object = is_passive ? std::malloc(size) : nullptr;
  }
  std::atomic<std::size_t> ready{0};
  std::atomic<std::uint64_t> right{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    ready++;
    while (ready < threads) {
      std::this_thread::yield();
    }
    std::free(handed[thread]);
    std::uint64_t mine = 0;
    for (std::uint64_t i = 0; i < count; i++) {
      auto* bytes = static_cast<unsigned char*>(std::malloc(size));
      mine += write_often(bytes, writes);
      std::free(bytes);
    }
    right += mine;
  });
  bench::check(right == count * threads, "an object does not hold what was written");
  bench::report("checksum", right);
}
