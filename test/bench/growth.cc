// Vectors that grow by realloc: the one whose turn it is, at random, gets half of its length on
// top, until it is as long as its limit; then it starts anew. One word in each 4 KiB is written,
// and all that was written is looked for in the end.
//
//   growth [--vectors=200] [--least=64 bytes] [--most=262144 bytes] [--count=reallocs]
//
// One vector with --most=1073741824 and --count=43 grows once, to 1 GiB.
#include <algorithm>

#include "bench.h"

namespace {

constexpr std::size_t kStep = 4096 / sizeof(std::uint64_t);

struct Vector {
  std::uint64_t* words = nullptr;
  std::size_t length = 0;
};

std::uint64_t mark(std::size_t index) { return index * 0x9e3779b97f4a7c15 + 1; }

void drop(Vector& vector) {
  for (std::size_t i = 0; i < vector.length; i += kStep) {
    bench::check(vector.words[i] == mark(i), "a vector does not hold what was written");
  }
  std::free(vector.words);
  vector = {};
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const auto vectors = static_cast<std::uint32_t>(options.whole("vectors", 200));
  const std::size_t least = options.whole("least", 64) / sizeof(std::uint64_t);
  const std::size_t most = options.whole("most", 256 << 10) / sizeof(std::uint64_t);
  const std::uint64_t count = options.scaled("count", 300'000);
  options.finish();
  bench::check(vectors > 0 && least > 1 && least <= most,
               "--vectors must not be 0, and the sizes must be 16 <= least <= most");

  bench::Random random(1);
  std::vector<Vector> table(vectors);
  std::uint64_t total = 0;
  for (std::uint64_t i = 0; i < count; i++) {
    Vector& vector = table[random.below(vectors)];
    if (vector.length == most) {
      drop(vector);
    }
    const std::size_t length =
        vector.length == 0 ? least : std::min(vector.length + vector.length / 2, most);
    vector.words =
        static_cast<std::uint64_t*>(std::realloc(vector.words, length * sizeof(std::uint64_t)));
    bench::check(vector.words != nullptr, "out of memory");
    const std::size_t first = (vector.length + kStep - 1) / kStep * kStep;
    for (std::size_t j = first; j < length; j += kStep) {
      vector.words[j] = mark(j);
    }
    vector.length = length;
    total += length;
  }
  for (Vector& vector : table) {
    drop(vector);
  }
  bench::report("checksum", total);
}
