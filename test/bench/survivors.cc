// Short threads of which something stays: each allocates a few hundred objects of mixed sizes,
// frees most of them and ends. The rest is freed by the thread that started it, once --later more
// threads have ended.
//
//   survivors [--threads=4 that start others] [--count=20,000 short threads over all]
//             [--objects=300 in a short thread] [--later=4,000 over all]
//
// Stages: 1 when as much lives as ever will, 2 when the last thread has ended.
#include "watched.h"

namespace {

constexpr std::size_t kLeft = 10;       // objects that outlive their thread
constexpr std::uint64_t kLookMs = 300;  // so long the end can be looked at

std::uint64_t free_all(bench::List& list) {
  std::uint64_t bytes = 0;
  while (bench::Object* object = list.pop()) {
    bytes += drop(object);
  }
  return bytes;
}

// What a short thread does. Gives by how much what is live has grown.
std::int64_t live(bench::Random random, std::size_t objects, bench::List& left) {
  bench::List list;
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < objects; i++) {
    bench::Object* object = bench::make(bench::mixed_size(random));
    if (i % (objects / kLeft) == 0) {
      bytes += object->size;
      left.push(object);
    } else {
      list.push(object);
    }
  }
  free_all(list);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  bench::Watched watched(options);
  const std::size_t starters = options.threads(4);
  const std::uint64_t count = options.scaled("count", 20'000) / starters;
  const std::uint64_t later = options.scaled("later", 4'000) / starters + 1;
  const std::size_t objects = options.whole("objects", 300);
  options.finish();
  bench::check(objects >= kLeft, "--objects must be 10 or more");

  std::vector<std::vector<bench::List>> left(starters);
  std::vector<std::uint64_t> freed(starters);
  bench::run_threads(starters, [&](std::size_t starter) {
    left[starter] = std::vector<bench::List>(later);
    for (std::uint64_t i = 0; i < count; i++) {
      bench::List& mine = left[starter][i % later];
      const std::uint64_t old = free_all(mine);
      freed[starter] += old;
      watched.add(-static_cast<std::int64_t>(old));
      std::thread([&] {
        watched.add(live(bench::Random(starter * count + i), objects, mine));
      }).join();
      if (starter == 0 && i == later) {
        watched.reach(1);
      }
    }
  });
  watched.reach(2);
  bench::sleep_ms(kLookMs);
  watched.reach(bench::Watched::kEnd);
  watched.write_report();
  std::uint64_t total = 0;
  for (std::size_t starter = 0; starter < starters; starter++) {
    for (bench::List& list : left[starter]) {
      total += free_all(list);
    }
    total += freed[starter];
  }
  bench::report("checksum", total);
}
