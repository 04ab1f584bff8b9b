// Short threads: each allocates a few hundred objects of mixed sizes, frees most of them and ends.
// The rest is freed by the thread that started it.
//
//   thread_churn [--threads=2 that start others] [--objects=300 in a short thread]
//                [--count=short threads over all]
#include "bench.h"

namespace {

constexpr std::size_t kLeft = 10;  // objects that outlive their thread

struct Object {
  std::uint64_t number;
  std::uint64_t size;
};

void drop(Object* object, std::uint64_t number, std::uint64_t& bytes) {
  bench::check(object->number == number, "an object does not hold what was written");
  bytes += object->size;
  std::free(object);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const std::size_t objects = options.whole("objects", 300);
  const std::uint64_t count = options.scaled("count", 10'000) / threads;
  options.finish();
  bench::check(objects >= kLeft, "--objects must be 10 or more");

  std::vector<std::uint64_t> bytes(threads);
  bench::run_threads(threads, [&](std::size_t starter) {
    std::vector<Object*> table(objects);
    std::uint64_t mine = 0;
    for (std::uint64_t life = 0; life < count; life++) {
      std::thread([&] {
        bench::Random random(starter * count + life);
        for (std::size_t i = 0; i < objects; i++) {
          const std::uint32_t size = random.between(16, 512);
          table[i] = static_cast<Object*>(std::malloc(size));
          *table[i] = {i, size};
        }
        for (std::size_t i = kLeft; i < objects; i++) {
          drop(table[i], i, mine);
        }
      }).join();
      for (std::size_t i = 0; i < kLeft; i++) {
        drop(table[i], i, mine);
      }
    }
    bytes[starter] = mine;
  });
  std::uint64_t total = 0;
  for (const std::uint64_t mine : bytes) {
    total += mine;
  }
  bench::report("checksum", total);
}
