// A hash table of one block, as large as a server's: filled to three quarters, then looked up at
// random. Its lines are far apart, so that the TLB counts: what huge pages are good for.
//   hash_table [--mib=1024] [--lookups=40000000]
#include "bench.h"

namespace {

struct Entry {
  std::uint64_t key;  // 0: none
  std::uint64_t value;
};

std::uint64_t hash(std::uint64_t key) {
  key *= 0x9e3779b97f4a7c15U;
  return key ^ (key >> 29);
}

Entry& find(Entry* table, std::size_t mask, std::uint64_t key) {
  std::size_t at = hash(key) & mask;
  while (table[at].key != key && table[at].key != 0) {
    at = (at + 1) & mask;
  }
  return table[at];
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t mib = options.whole("mib", 1024);
  const std::uint64_t lookups = options.scaled("lookups", 40'000'000);
  options.finish();
  const std::size_t entries = mib * (std::size_t{1} << 20) / sizeof(Entry);
  bench::check(entries != 0 && (entries & (entries - 1)) == 0, "wanted: --mib a power of two");

  auto* const table = static_cast<Entry*>(std::calloc(entries, sizeof(Entry)));
  bench::check(table != nullptr, "no memory");
  const std::uint64_t keys = entries / 4 * 3;
  for (std::uint64_t key = 1; key <= keys; key++) {
    find(table, entries - 1, key) = {key, ~key};
  }
  bench::Random random(1);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < lookups; i++) {
    const std::uint64_t key = 1 + random.below(keys);
    const Entry& entry = find(table, entries - 1, key);
    bench::check(entry.value == ~key, "an entry is not what was put there");
    sum += entry.value;
  }
  std::free(table);
  bench::report("checksum", sum);
  return 0;
}
