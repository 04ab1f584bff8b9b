// A server's memory, request by request: 40 small blocks and 2 large ones, all freed at the end of
// the request. --way says from where: malloc and free; a region pool of libminitc, which is reset;
// or the least that a program can write for itself, which is what a pool should not cost much more
// than. Both of these are called as functions, or compiled into the loop (…-inline).
//   --way=malloc|pool|pool-inline|bump|bump-inline --count=requests
#include "../../preload/minitc.h"

#include "bench.h"

// The program also runs on other mallocs, where these are null.
#pragma weak minitc_pool_create
#pragma weak minitc_pool_alloc
#pragma weak minitc_pool_reset
#pragma weak minitc_pool_destroy

namespace {

constexpr std::size_t kSmall = 40;
constexpr std::size_t kLarge = 2;
constexpr std::size_t kBlocks = kSmall + kLarge;
constexpr std::size_t kKinds = 64;  // of requests, which come in turn

using Sizes = std::uint32_t[kBlocks];

// Many short strings and a few structures; a buffer for what comes in and one for what goes out.
void draw(Sizes& sizes, bench::Random& random) {
  for (std::size_t i = 0; i < kSmall; i++) {
    sizes[i] = random.between(8, 32U << random.below(4));
  }
  sizes[kSmall / 2] = random.between(4097, 16384);
  sizes[kSmall] = random.between(8, 256);
  sizes[kSmall + 1] = random.between(4097, 16384);
}

constexpr std::size_t kFirstChunk = 16384;

class Malloc {
 public:
  void* allocate(std::size_t bytes) { return blocks_[count_++] = std::malloc(bytes); }
  void end_request() {
    while (count_ != 0) {
      std::free(blocks_[--count_]);
    }
  }

 private:
  void* blocks_[kBlocks];
  std::size_t count_ = 0;
};

template <bool kIsInline>
class Pool {
 public:
  Pool() {
    bench::check(minitc_pool_create != nullptr, "--way=pool: not running on libminitc");
    pool_ = minitc_pool_create(kFirstChunk);
  }
  ~Pool() { minitc_pool_destroy(pool_); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  void* allocate(std::size_t bytes) {
    return kIsInline ? minitc_pool_take(pool_, bytes) : minitc_pool_alloc(pool_, bytes);
  }
  void end_request() { minitc_pool_reset(pool_); }

 private:
  minitc_pool_t* pool_;
};

// One chunk that is long enough, and an array of large blocks. It checks nothing but what it must.
template <bool kIsInline>
class Bump {
 public:
  Bump() : start_(static_cast<char*>(std::malloc(kFirstChunk))) {
    cursor_ = start_;
    limit_ = start_ + kFirstChunk;
  }
  ~Bump() { std::free(start_); }
  Bump(const Bump&) = delete;
  Bump& operator=(const Bump&) = delete;
  void* allocate(std::size_t bytes) { return kIsInline ? take(bytes) : call(bytes); }
  [[gnu::noinline]] void end_request() {
    while (count_ != 0) {
      std::free(large_[--count_]);
    }
    cursor_ = start_;
  }

 private:
  [[gnu::noinline]] void* call(std::size_t bytes) { return take(bytes); }
  [[gnu::always_inline]] void* take(std::size_t bytes) {
    if (bytes > MINITC_POOL_SMALL) [[unlikely]] {
      return large_[count_++] = std::malloc(bytes);
    }
    char* const block = cursor_;
    cursor_ += (bytes + 15) & ~std::size_t{15};
    bench::check(cursor_ <= limit_, "the chunk is too short");
    return block;
  }

  char* start_;
  char* cursor_;
  char* limit_;
  void* large_[kLarge];
  std::size_t count_ = 0;
};

template <typename Memory>
std::uint64_t serve(const Sizes* kinds, std::uint64_t count) {
  Memory memory;
  std::uint64_t sum = 0;
  for (std::uint64_t request = 0; request < count; request++) {
    const Sizes& sizes = kinds[request % kKinds];
    std::uint64_t* last = nullptr;
    for (const std::uint32_t bytes : sizes) {
      auto* const block = static_cast<std::uint64_t*>(memory.allocate(bytes));
      bench::check(block != nullptr, "no memory");
      *block = request + bytes;
      last = block;
    }
    sum += *last;
    memory.end_request();
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  static constexpr const char* kWays[] = {"malloc", "pool", "pool-inline", "bump", "bump-inline"};
  static constexpr decltype(&serve<Malloc>) kServe[] = {
      serve<Malloc>, serve<Pool<false>>, serve<Pool<true>>, serve<Bump<false>>, serve<Bump<true>>};
  const std::size_t way = options.word("way", kWays);
  const std::uint64_t count = options.scaled("count", 1'000'000);
  options.finish();

  static Sizes kinds[kKinds];
  bench::Random random(5);
  for (Sizes& sizes : kinds) {
    draw(sizes, random);
  }
  bench::report("checksum", kServe[way](kinds, count));
  return 0;
}
