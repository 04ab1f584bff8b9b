// Random sizes, of which a part is freed by another thread than the one that allocated. A thread
// replaces objects in a table of its own; some of those that it takes out go through a board of
// places that all threads share: it leaves its object there and frees the one that it finds.
//
//   crossing [--threads=2] [--least=8] [--most=16000] [--percent=25 through the board]
//            [--slots=4000 over all threads] [--count=replacements over all threads]
#include <atomic>

#include "bench.h"

namespace {

constexpr std::uint32_t kBoard = 1024;

struct Totals {
  std::uint64_t made = 0, freed = 0;  // bytes
};

// An object of 8 bytes has room for one number: its size, and a mark that is not zero.
struct Object {
  std::uint32_t size;
  std::uint32_t mark;
};
constexpr std::uint32_t kMark = 0x5eed5eed;

std::atomic<Object*> g_board[kBoard];

Object* make(bench::Random& random, std::uint32_t least, std::uint32_t most, Totals& totals) {
  const std::uint32_t size = random.between(least, most);
  auto* object = static_cast<Object*>(std::malloc(size));
  reinterpret_cast<unsigned char*>(object)[size - 1] = 1;
  *object = {size, kMark};
  totals.made += size;
  return object;
}

void drop(Object* object, Totals& totals) {
  if (object != nullptr) {
    bench::check(object->mark == kMark, "an object does not hold what was written");
    totals.freed += object->size;
    std::free(object);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const auto least = static_cast<std::uint32_t>(options.whole("least", 8));
  const auto most = static_cast<std::uint32_t>(options.whole("most", 16'000));
  const auto percent = static_cast<std::uint32_t>(options.whole("percent", 25));
  const auto slots = static_cast<std::uint32_t>(options.whole("slots", 4000) / threads);
  const std::uint64_t count = options.scaled("count", 1'600'000) / threads;
  options.finish();
  bench::check(least >= sizeof(Object) && least <= most, "the sizes must be 8 <= least <= most");
  bench::check(slots > 0 && percent <= 100, "--slots are too few or --percent is above 100");

  std::vector<Totals> totals(threads);
  bench::run_threads(threads, [&](std::size_t thread) {
    Totals mine;
    bench::Random random(thread);
    std::vector<Object*> table(slots);
    for (std::uint64_t i = 0; i < count; i++) {
      Object*& slot = table[random.below(slots)];
      Object* taken = slot;
      if (random.below(100) < percent) {
        taken = g_board[random.below(kBoard)].exchange(taken, std::memory_order_acq_rel);
      }
      drop(taken, mine);
      slot = make(random, least, most, mine);
    }
    for (Object* object : table) {
      drop(object, mine);
    }
    totals[thread] = mine;
  });
  Totals all;
  for (std::atomic<Object*>& place : g_board) {
    drop(place.load(), all);
  }
  for (const Totals& mine : totals) {
    all.made += mine.made;
    all.freed += mine.freed;
  }
  bench::check(all.made == all.freed, "not all that was allocated was freed");
  bench::report("checksum", all.made);
}
