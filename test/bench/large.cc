// Large blocks of 256 KiB to 32 MiB, small ones more often than large ones, written from end to end
// and freed at random. It also reports how many bytes were live at the most.
//
//   large [--threads=1] [--slots=16 over all threads] [--count=blocks over all threads]
#include <algorithm>
#include <atomic>

#include "bench.h"

namespace {

constexpr std::uint32_t kLeastBits = 18, kMostBits = 25;

struct Block {
  std::uint64_t* words = nullptr;
  std::size_t size = 0;  // in bytes; a multiple of a word
  std::uint64_t mark = 0;
};

std::atomic<std::uint64_t> g_live{0}, g_peak{0};

Block make(bench::Random& random, std::uint64_t mark) {
  // Each doubling of the size is as likely as the others.
  const std::uint32_t bits = random.between(kLeastBits, kMostBits - 1);
  Block block;
  block.mark = mark;
  block.size =
      ((std::size_t{1} << bits) + random.below(std::uint32_t{1} << bits)) & ~std::size_t{7};
  block.words = static_cast<std::uint64_t*>(std::malloc(block.size));
  const std::uint64_t live = g_live.fetch_add(block.size) + block.size;
  std::uint64_t peak = g_peak.load();
  while (live > peak && !g_peak.compare_exchange_weak(peak, live)) {
  }
  std::fill_n(block.words, block.size / sizeof(std::uint64_t), mark);
  return block;
}

void drop(const Block& block) {
  if (block.words == nullptr) {
    return;
  }
  for (std::size_t i = 0; i < block.size / sizeof(std::uint64_t); i += 512) {
    bench::check(block.words[i] == block.mark, "a block does not hold what was written");
  }
  g_live -= block.size;
  std::free(block.words);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const auto slots = static_cast<std::uint32_t>(options.whole("slots", 16) / threads);
  const std::uint64_t count = options.scaled("count", 400) / threads;
  options.finish();
  bench::check(slots > 0, "--slots are fewer than the threads");

  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    bench::Random random(thread);
    std::vector<Block> blocks(slots);
    for (std::uint64_t i = 0; i < count; i++) {
      Block& block = blocks[random.below(slots)];
      drop(block);
      block = make(random, i * threads + thread);
      total += block.size;
    }
    for (const Block& block : blocks) {
      drop(block);
    }
  });
  bench::report("checksum", total);
  if (threads == 1) {  // with more it depends on the scheduler
    bench::report("live_peak_bytes", g_peak);
  }
}
