// Phases in which threads die and objects survive. In each phase new threads allocate objects of
// the phase's own range of sizes and free most of them again; what survives lies scattered, and is
// freed by threads of later phases. Memory that a phase has left must serve the next ones.
//
//   phases [--threads=2] [--phases=24] [--count=objects over all threads and phases]
#include "bench.h"

namespace {

constexpr std::size_t kSurvivors = 16;  // one in so many
constexpr std::size_t kKeptPhases = 4;  // that long the survivors live

struct Object {
  std::uint32_t phase;
  std::uint32_t size;
};
using Objects = std::vector<Object*>;

void drop(Object* object, std::size_t phase, std::uint64_t& bytes) {
  bench::check(object->phase == phase, "an object does not hold what was written");
  bytes += object->size;
  std::free(object);
}

// Phases take turns among these ranges.
constexpr struct {
  std::uint32_t least, most;
} kRanges[] = {{16, 128}, {500, 2000}, {100, 400}, {2000, 8000}, {24, 64}};

// One thread's part in a phase.
void take_part(std::size_t phase, std::uint64_t count, bench::Random random, Objects& kept,
               std::uint64_t& bytes) {
  const auto& range = kRanges[phase % std::size(kRanges)];
  // Fewer of the large ones, so that the phases are alike in bytes.
  Objects made(count * 64 / (range.least + range.most) + 1);
  for (Object*& object : made) {
    const std::uint32_t size = random.between(range.least, range.most);
    object = static_cast<Object*>(std::malloc(size));
    std::memset(object, 1, size);
    *object = {static_cast<std::uint32_t>(phase), size};
  }
  for (Object* object : made) {
    if (random.below(kSurvivors) == 0) {
      kept.push_back(object);
    } else {
      drop(object, phase, bytes);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const std::size_t phases = options.whole("phases", 24);
  bench::check(phases > 0, "--phases must not be 0");
  const std::uint64_t count = options.scaled("count", 10'000'000) / phases / threads;
  options.finish();

  // kept[phase][thread]: what survived.
  std::vector<std::vector<Objects>> kept(phases, std::vector<Objects>(threads));
  std::vector<std::uint64_t> bytes(threads);
  for (std::size_t phase = 0; phase < phases; phase++) {
    bench::run_threads(threads, [&](std::size_t i) {
      take_part(phase, count, bench::Random(phase * threads + i), kept[phase][i], bytes[i]);
      if (phase >= kKeptPhases) {
        const std::size_t old = phase - kKeptPhases;
        for (Object* object : kept[old][(i + 1) % threads]) {
          drop(object, old, bytes[i]);
        }
      }
    });
    if (phase >= kKeptPhases) {
      kept[phase - kKeptPhases].clear();
    }
  }
  std::uint64_t total = 0;
  for (std::size_t phase = 0; phase < phases; phase++) {
    for (const Objects& objects : kept[phase]) {
      for (Object* object : objects) {
        drop(object, phase, total);
      }
    }
  }
  for (const std::uint64_t mine : bytes) {
    total += mine;
  }
  bench::report("checksum", total);
}
