// malloc and free of one size in turn: what a pair costs when nothing goes wrong.
//
//   pairs [--threads=1] [--size=64] [--count=pairs over all threads]
#include <atomic>

#include "bench.h"

namespace {

// The bits that were set in any of the addresses.
std::uintptr_t pairs(std::uint64_t count, std::size_t size) {
  std::uintptr_t seen = 0;
  for (; count > 0; count--) {
    void* object = std::malloc(size);
    *static_cast<volatile unsigned char*>(object) = 1;
    seen |= reinterpret_cast<std::uintptr_t>(object);
    std::free(object);
  }
  return seen;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const std::size_t size = options.whole("size", 64);
  const std::uint64_t count = options.scaled("count", 40'000'000) / threads;
  options.finish();
  bench::check(size >= alignof(std::max_align_t), "--size must be 16 or more");

  std::atomic<std::uintptr_t> seen{0};
  bench::run_threads(threads, [&](std::size_t) { seen |= pairs(count, size); });
  bench::check(seen % alignof(std::max_align_t) == 0, "an object is not aligned");
  bench::report("checksum", count * threads);
}
