#include "core/metadata_arena.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <utility>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::FakeOs;
using test::OsCall;

struct Arena {
  Arena() { arena.init(os); }
  // The arena keeps no record of its chunks; where a block may be is known from the OS.
  char* block(unsigned shift) { return static_cast<char*>(arena.allocate_block(shift)); }

  FakeOs fake;
  Os os = fake.metadata_os();
  MetadataArena arena;
};

TEST_CASE("metadata arena: sizes round up to powers of two of at least 16") {
  CHECK(MetadataArena::shift_of(1) == 4);
  CHECK(MetadataArena::shift_of(16) == 4);
  CHECK(MetadataArena::shift_of(17) == 5);
  CHECK(MetadataArena::shift_of(64) == 6);
  CHECK(MetadataArena::shift_of(65) == 7);
  CHECK(MetadataArena::shift_of(4096) == MetadataArena::kMaxShift);
}

TEST_CASE("metadata arena: blocks are aligned, apart from each other and all there") {
  Arena a;
  std::vector<std::pair<char*, std::size_t>> blocks;
  test::Random random(1);
  for (int i = 0; i < 3000; ++i) {
    const unsigned shift = MetadataArena::kMinShift +
                           static_cast<unsigned>(random.below(MetadataArena::kMaxShift - 3));
    char* const block = a.block(shift);
    REQUIRE(block != nullptr);
    const std::size_t bytes = std::size_t{1} << shift;
    REQUIRE(reinterpret_cast<std::uintptr_t>(block) % std::min<std::size_t>(bytes, 64) == 0);
    memset(block, 1, bytes);  // dies if it is not there
    blocks.emplace_back(block, bytes);
  }
  std::sort(blocks.begin(), blocks.end());
  std::size_t overlaps = 0;
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i - 1].first + blocks[i - 1].second > blocks[i].first) ++overlaps;
  }
  CHECK(overlaps == 0);
  CHECK(a.arena.reserved_bytes() == a.fake.metadata_bytes());
  CHECK(a.arena.reserved_bytes() == a.fake.calls(OsCall::kMetadata) * kMetadataChunkBytes);
}

TEST_CASE("metadata arena: a chunk is used to its end before the next is taken") {
  Arena a;
  const std::size_t per_chunk = (kMetadataChunkBytes >> 6) - 1;
  for (std::size_t i = 0; i < per_chunk; ++i) a.block(6);
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
  a.block(6);
  CHECK(a.arena.reserved_bytes() == 2 * kMetadataChunkBytes);
}

TEST_CASE("metadata arena: what precedes a block can be read, also if it is the first of all") {
  for (unsigned shift = MetadataArena::kMinShift; shift <= MetadataArena::kMaxShift; ++shift) {
    Arena a;
    const std::uintptr_t before = reinterpret_cast<std::uintptr_t>(a.block(shift)) - 1;
    CHECK(before / 4096 == (before + 1) / 4096);
  }
}

TEST_CASE("metadata arena: a freed block serves the next request of its size, and no other") {
  Arena a;
  for (unsigned shift = MetadataArena::kMinShift; shift <= MetadataArena::kMaxShift; ++shift) {
    char* const first = a.block(shift);
    char* const second = a.block(shift);
    a.arena.deallocate_block(first, shift);
    a.arena.deallocate_block(second, shift);
    if (shift < MetadataArena::kMaxShift) {
      char* const other = a.block(shift + 1);
      CHECK((other != first && other != second));
      a.arena.deallocate_block(other, shift + 1);
    }
    CHECK(a.block(shift) == second);
    CHECK(a.block(shift) == first);
  }
}

TEST_CASE("metadata arena: a stock's blocks are its owner's until they are taken back") {
  Arena a;
  MetadataArena::Stock stock;
  CHECK(stock.pop(5) == nullptr);
  char* const first = a.block(5);
  char* const second = a.block(5);
  char* const longer = a.block(6);
  stock.push(first, 5);
  stock.push(second, 5);
  stock.push(longer, 6);
  CHECK(stock.pop(6) == longer);
  CHECK(stock.pop(6) == nullptr);
  CHECK(a.block(5) != first);
  a.arena.take_back(stock);
  CHECK(stock.pop(5) == nullptr);
  const std::set<char*> taken = {a.block(5), a.block(5)};
  CHECK(taken == std::set<char*>{first, second});
  CHECK(a.arena.violation() == nullptr);
}

TEST_CASE("metadata arena: churn takes no more from the OS than it holds at a time") {
  Arena a;
  std::vector<char*> blocks;
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 1000; ++i) blocks.push_back(a.block(6));
    for (char* const block : blocks) a.arena.deallocate_block(block, 6);
    blocks.clear();
  }
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
}

TEST_CASE("metadata arena: objects are constructed in it and their blocks come back") {
  struct Pair {
    Pair(int a, int b) : first(a), second(b) {}
    int first;
    int second;
    char rest[40];
  };
  Arena a;
  Pair* const pair = a.arena.create<Pair>(1, 2);
  REQUIRE(pair != nullptr);
  CHECK(pair->first == 1);
  CHECK(pair->second == 2);
  a.arena.destroy(pair);
  CHECK(a.block(MetadataArena::shift_of(sizeof(Pair))) == reinterpret_cast<char*>(pair));
}

TEST_CASE("metadata arena: when the OS refuses there is no block, and later there is") {
  Arena a;
  a.fake.fail(OsCall::kMetadata, 1, test::kAlways);
  CHECK(a.block(4) == nullptr);
  CHECK(a.arena.create<Span>(PageId{1}, kOnePage, SpanState::kFree) == nullptr);
  CHECK(a.arena.reserved_bytes() == 0);
  a.fake.stop_failing();
  constexpr unsigned kShift = MetadataArena::kMaxShift;
  char* const block = a.block(kShift);
  REQUIRE(block != nullptr);

  // What is left of the chunk and what was freed can be had while the OS refuses.
  a.fake.fail(OsCall::kMetadata, 1, test::kAlways);
  std::size_t more = 0;
  while (a.block(kShift) != nullptr) ++more;
  CHECK(more == (kMetadataChunkBytes >> kShift) - 2);
  a.arena.deallocate_block(block, kShift);
  CHECK(a.block(kShift) == block);
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
}

TEST_CASE("metadata arena: who holds a lock gets what there is, and the OS is asked before") {
  Arena a;
  CHECK(a.arena.take_block(6) == nullptr);
  a.arena.refill_if_low();
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
  a.arena.refill_if_low();  // the chunk has only begun
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
  const std::size_t per_chunk = (kMetadataChunkBytes >> 6) - 1;
  const std::size_t low = kLowMetadataBytes >> 6;
  for (std::size_t i = 0; i < per_chunk - low; ++i) REQUIRE(a.arena.take_block(6) != nullptr);
  a.arena.refill_if_low();
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
  REQUIRE(a.arena.take_block(6) != nullptr);
  a.arena.refill_if_low();
  CHECK(a.arena.reserved_bytes() == 2 * kMetadataChunkBytes);
  a.arena.refill_if_low();
  CHECK(a.arena.reserved_bytes() == 2 * kMetadataChunkBytes);
  // The rest of the first is used, and all of the second.
  for (std::size_t i = 1; i < per_chunk + low; ++i) REQUIRE(a.arena.take_block(6) != nullptr);
  CHECK(a.arena.take_block(6) == nullptr);
}

Arena* asked_twice = nullptr;

TEST_CASE("metadata arena: of two threads that ask for a chunk one gives its own back") {
  Arena a;
  asked_twice = &a;
  // What another thread does while this one is in the kernel.
  a.fake.at_metadata([] {
    Arena* const other = std::exchange(asked_twice, nullptr);
    if (other != nullptr) other->arena.refill_if_low();
  });
  CHECK(a.block(6) != nullptr);
  CHECK(a.fake.calls(OsCall::kMetadata) == 2);
  CHECK(a.fake.calls(OsCall::kRelease) == 1);
  CHECK(a.arena.reserved_bytes() == kMetadataChunkBytes);
  CHECK(a.fake.metadata_bytes() == kMetadataChunkBytes);
}

TEST_CASE("metadata arena: no two threads get the same block") {
  Arena a;
  std::atomic<std::size_t> spoiled{0};
  test::in_threads(8, [&](std::size_t thread) {
    test::Random random(thread);
    std::vector<char*> blocks;
    for (std::size_t i = 0; i < 300 * test::kRounds; ++i) {
      char* const block = a.block(7);
      memset(block, static_cast<int>(thread), 128);
      blocks.push_back(block);
      if (random.below(3) == 0) {
        char* const freed = blocks[random.below(blocks.size())];
        std::swap(*std::find(blocks.begin(), blocks.end(), freed), blocks.back());
        blocks.pop_back();
        if (!test::all_bytes_are(freed, 128, static_cast<unsigned char>(thread))) ++spoiled;
        a.arena.deallocate_block(freed, 7);
      }
    }
    for (char* const block : blocks) {
      if (!test::all_bytes_are(block, 128, static_cast<unsigned char>(thread))) ++spoiled;
    }
  });
  CHECK(spoiled == 0);
}

}  // namespace
}  // namespace minitc
