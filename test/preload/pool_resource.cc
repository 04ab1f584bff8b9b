// LDFLAGS: -L$(dirname $LIB) -lminitc
// The memory resource of minitc_pool.hpp under the containers of std::pmr.
#include "../../preload/minitc_pool.hpp"

#include <list>
#include <map>
#include <memory_resource>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "check.h"

namespace {

using minitc::PoolResource;

minitc_pool_stats_t stats_of(const PoolResource& memory) {
  minitc_pool_stats_t stats;
  minitc_pool_stats(memory.pool(), &stats, sizeof(stats));
  return stats;
}

std::string word(int i) {
  return "a word that is too long for the string itself " + std::to_string(i);
}

void containers() {
  PoolResource memory;
  for (int round = 0; round < 3; round++) {
    {
      std::pmr::vector<std::pmr::string> words(&memory);
      std::pmr::map<int, std::pmr::string> sorted(&memory);
      std::pmr::unordered_map<std::pmr::string, int> hashed(&memory);
      std::pmr::list<std::pmr::vector<int>> lists(&memory);
      for (int i = 0; i < 5000; i++) {
        words.emplace_back(word(i));
        sorted.emplace(i * 7919 % 5000, word(i));
        hashed.emplace(word(i), i);
        lists.emplace_back(static_cast<std::size_t>(i % 3000), i);
        if (i % 3 == 0) lists.pop_front();
      }
      for (int i = 0; i < 5000; i++) {
        CHECK(words[static_cast<std::size_t>(i)] == word(i).c_str());
        CHECK(sorted.at(i * 7919 % 5000) == word(i).c_str());
        CHECK(hashed.at(std::pmr::string(word(i), &memory)) == i);
      }
      for (const auto& list : lists) {
        for (const int value : list) CHECK(value % 3000 == static_cast<int>(list.size()));
      }
      CHECK(words.get_allocator().resource()->is_equal(memory));
    }
    // The containers have given back what is large.
    CHECK(stats_of(memory).large_count == 0);
    CHECK(stats_of(memory).chunk_bytes > 1 << 20);
    memory.reset();
    CHECK(stats_of(memory).chunk_bytes <= 64 << 10);
  }
}

void growing_vector_keeps_one_large_block() {
  PoolResource memory(4096);
  std::pmr::vector<int> numbers(&memory);
  for (int i = 0; i < 1 << 22; i++) numbers.push_back(i);
  for (int i = 0; i < 1 << 22; i++) CHECK(numbers[static_cast<std::size_t>(i)] == i);
  CHECK(stats_of(memory).large_count == 1);
  CHECK(stats_of(memory).large_bytes == numbers.capacity() * sizeof(int));
  CHECK(stats_of(memory).chunks <= 4);
}

struct alignas(256) Aligned {
  char bytes[256];
};

void alignments() {
  PoolResource memory;
  std::pmr::vector<Aligned> few(3, &memory);
  std::pmr::vector<Aligned> many(100, &memory);
  CHECK(reinterpret_cast<std::uintptr_t>(few.data()) % 256 == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(many.data()) % 256 == 0);
  CHECK(stats_of(memory).large_count == 1);
  for (std::size_t alignment = 1; alignment <= 1 << 16; alignment *= 2) {
    void* const block = memory.allocate(100, alignment);
    CHECK(reinterpret_cast<std::uintptr_t>(block) % alignment == 0);
    memory.deallocate(block, 100, alignment);
  }
  CHECK(stats_of(memory).large_count == 1);
}

void pool_of_the_program() {
  minitc_pool_t* const pool = minitc_pool_create(0);
  {
    PoolResource memory(*pool);
    CHECK(memory.pool() == pool);
    std::pmr::string text("a string that is longer than what fits into it", &memory);
    CHECK(stats_of(memory).used_bytes > 0);
    PoolResource other(*pool);
    CHECK(!memory.is_equal(other) && memory.is_equal(memory));
  }
  CHECK(minitc_pool_alloc(pool, 10) != nullptr);
  minitc_pool_destroy(pool);
}

template <typename Body>
bool throws_bad_alloc(Body body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

void bad_alloc() {
  PoolResource memory;
  CHECK(throws_bad_alloc([&] { (void)memory.allocate(SIZE_MAX, 1); }));
  CHECK(throws_bad_alloc([&] { (void)memory.allocate(std::size_t{1} << 50, 64); }));
  CHECK(throws_bad_alloc([] { PoolResource too_large(SIZE_MAX); }));
  limit_address_space(std::size_t{128} << 20);
  std::pmr::vector<std::pmr::string> words(&memory);
  CHECK(throws_bad_alloc([&] {
    while (true) words.emplace_back(1000, 'x');
  }));
  CHECK(words.size() > 50000 && words.back() == std::string(1000, 'x').c_str());
  words = std::pmr::vector<std::pmr::string>(&memory);
  memory.reset();
  for (int i = 0; i < 10000; i++) (void)memory.allocate(1000);
}

}  // namespace

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"containers", containers},
      {"growing_vector_keeps_one_large_block", growing_vector_keeps_one_large_block},
      {"alignments", alignments},
      {"pool_of_the_program", pool_of_the_program},
      {"bad_alloc", bad_alloc},
      {nullptr, nullptr},
  };
  return run_case(argc, argv, cases);
}
