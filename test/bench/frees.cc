// Allocates many small objects, frees all but one in --keep, and then calls nothing for a while.
//
//   frees [--count=50,000,000] [--size=120] [--keep=0: none, or one in so many]
//
// Stages: 1 at the peak, 2 when all is freed.
#include "watched.h"

namespace {
constexpr std::uint64_t kPeakMs = 200, kWhileMs = 1500;
}

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  bench::Watched watched(options);
  const std::uint64_t count = options.scaled("count", 50'000'000);
  const std::uint64_t keep = options.whole("keep", 0);
  const auto size = static_cast<std::uint32_t>(options.whole("size", 120));
  options.finish();
  bench::check(size >= sizeof(bench::Object), "--size must be 16 or more");

  // In the order in which they were allocated.
  bench::Object* first = bench::make(size);
  bench::Object* last = first;
  for (std::uint64_t i = 1; i < count; i++) {
    last->next = bench::make(size);
    last = last->next;
  }
  watched.add(static_cast<std::int64_t>(count * size));
  watched.reach(1);
  bench::sleep_ms(kPeakMs);

  bench::List kept;
  std::uint64_t freed = 0, stay = 0;
  for (std::uint64_t i = 0; i < count; i++) {
    bench::Object* object = first;
    first = object->next;
    if (keep != 0 && i % keep == 0) {
      kept.push(object);
      stay++;
    } else {
      freed += drop(object);
    }
  }
  watched.add(-static_cast<std::int64_t>(freed));
  watched.reach(2);
  bench::sleep_ms(kWhileMs);
  watched.reach(bench::Watched::kEnd);
  while (bench::Object* object = kept.pop()) {
    freed += drop(object);
  }
  bench::report("checksum", freed + stay);
}
