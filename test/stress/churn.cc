// CFLAGS: -O2
// Allocates, checks, hands around and frees memory from many threads, with every byte of every
// object holding a pattern that depends on the object and on the byte's place in it. It uses only
// what libc and C++ promise, so any malloc must survive it.
//
//   churn THREADS AMOUNT [SEED [sabotage | soak=SECONDS]]
//
// AMOUNT is a number of operations over all threads, or a time such as 5s. The totals printed at
// the end depend on THREADS, an AMOUNT of operations and SEED alone: neither on the malloc nor on
// scheduling. "sabotage" flips one bit of one live object half-way, to prove that it is noticed.
// "soak" is for long times: threads also fork and trim now and then, and every so many seconds a
// line says "sample", the seconds since the start, the bytes live, the RSS in bytes, and the
// operations so far.
// Exit status: 0, or 1 after one line about the first thing found wrong.

#include <fcntl.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr std::uint64_t kLivesPerSlot = 6;       // threads that follow each other in a slot
constexpr std::size_t kTimedLifeBits = 15;       // up to 2^16 operations when AMOUNT is a time
constexpr std::size_t kArchiveBits = 13;         // 2^13 objects outlive most others
constexpr std::size_t kMaxArchived = 64 * 1024;  // bytes of one of them
constexpr std::size_t kOpsPerFork = 20'000;      // in a soak
constexpr std::size_t kOpsPerTrim = 20'000;
constexpr unsigned kForkSeconds = 120;     // a forked child that takes longer hangs
constexpr std::size_t kTableSize = 256;    // objects a thread can hold
constexpr std::size_t kMaxMail = 512;      // objects waiting in one mailbox
constexpr std::size_t kMaxSizeBits = 22;   // sizes up to 8 MiB
constexpr std::size_t kMaxAlignBits = 20;  // alignments up to 1 MiB
constexpr std::size_t kLiveBudget = std::size_t{128} << 20;  // bytes over all threads and mailboxes
constexpr int kErrnoMark = 4711;

[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...) {
  static std::mutex once;  // never unlocked: only the first finding is worth reading
  once.lock();
  char line[300];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "churn: %s\n", line);
  _exit(1);
}

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  return x ^ (x >> 32);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed + 1)) {}
  std::uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
  std::size_t below(std::size_t bound) { return next() % bound; }
  bool one_in(std::size_t n) { return below(n) == 0; }

  // Logarithmic, and large sizes rarer still, so that most of the time goes to allocation.
  std::size_t size() {
    if (one_in(400)) return 0;
    const std::size_t spread = kMaxSizeBits + 1;
    const std::size_t bits = std::min({below(spread), below(spread), below(spread)});
    return (std::size_t{1} << bits) + below(std::size_t{1} << bits);
  }
  std::size_t alignment() {
    const std::size_t spread = kMaxAlignBits - 3 + 1;
    return std::size_t{1} << (3 + std::min(below(spread), below(spread)));
  }

 private:
  std::uint64_t state_;
};

enum class Origin : std::uint8_t {
  kMalloc,
  kCalloc,
  kRealloc,
  kMemalign,
  kPosixMemalign,
  kAlignedAlloc,
  kNew,
  kAlignedNew
};
constexpr std::size_t kOrigins = 8;
constexpr const char* kOriginNames[kOrigins] = {
    "malloc",         "calloc",        "realloc",      "memalign",
    "posix_memalign", "aligned_alloc", "operator new", "aligned operator new"};

struct Block {
  unsigned char* bytes = nullptr;
  std::size_t size = 0;       // as asked for
  std::size_t filled = 0;     // bytes that hold the pattern: size, or all that are usable
  std::size_t alignment = 0;  // promised
  std::uint64_t tag = 0;
  Origin origin = Origin::kMalloc;

  const char* name() const { return kOriginNames[static_cast<std::size_t>(origin)]; }
  bool is_from_new() const { return origin == Origin::kNew || origin == Origin::kAlignedNew; }
};

using Clock = std::chrono::steady_clock;

std::atomic<std::size_t> g_live{0};  // the sum of the sizes of all blocks
std::atomic<std::uint64_t> g_operations{0};

std::uint64_t pattern_word(std::uint64_t tag, std::size_t index) {
  return (tag ^ index) * 0x9e3779b97f4a7c15u;
}

void fill(const Block& block) {
  std::size_t at = 0;
  for (; at + 8 <= block.filled; at += 8) {
    const std::uint64_t word = pattern_word(block.tag, at);
    std::memcpy(block.bytes + at, &word, 8);
  }
  const std::uint64_t word = pattern_word(block.tag, at);
  std::memcpy(block.bytes + at, &word, block.filled - at);
}

void verify(const Block& block, std::size_t count, const char* when) {
  std::size_t at = 0;
  for (; at + 8 <= count; at += 8) {
    const std::uint64_t expected = pattern_word(block.tag, at);
    std::uint64_t found;
    std::memcpy(&found, block.bytes + at, 8);
    if (found != expected) [[unlikely]]
      break;
  }
  for (std::size_t i = at; i < count && i < at + 8; ++i) {
    const std::uint64_t word = pattern_word(block.tag, at);
    const unsigned expected = static_cast<unsigned>(word >> (8 * (i - at))) & 0xff;
    if (block.bytes[i] != expected)
      fail("%s: byte %zu of %p (%s, %zu bytes) is 0x%02x, should be 0x%02x", when, i,
           static_cast<void*>(block.bytes), block.name(), block.size, block.bytes[i], expected);
  }
}

void verify(const Block& block, const char* when) { verify(block, block.filled, when); }

void verify_zero(const Block& block) {
  for (std::size_t i = 0; i < block.size; ++i)
    if (block.bytes[i] != 0)
      fail("calloc of %zu bytes: byte %zu of %p is 0x%02x, not zero", block.size, i,
           static_cast<void*>(block.bytes), block.bytes[i]);
}

void verify_address(const Block& block) {
  if (block.bytes == nullptr)
    fail("%s of %zu bytes, alignment %zu, gives NULL", block.name(), block.size, block.alignment);
  if (reinterpret_cast<std::uintptr_t>(block.bytes) % block.alignment != 0)
    fail("%s of %zu bytes: %p is not aligned to %zu", block.name(), block.size,
         static_cast<void*>(block.bytes), block.alignment);
}

// What malloc owes an object of this size: enough for any type that fits in it.
std::size_t natural_alignment(std::size_t size) { return size >= 16 ? 16 : size >= 8 ? 8 : 1; }

void use_all_bytes(Block& block) {
  block.filled = malloc_usable_size(block.bytes);
  if (block.filled < block.size)
    fail("malloc_usable_size(%p) is %zu for a %s of %zu bytes", static_cast<void*>(block.bytes),
         block.filled, block.name(), block.size);
}

void* raw_allocate(Block& block) {
  switch (block.origin) {
    case Origin::kMalloc:
      return std::malloc(block.size);
    case Origin::kCalloc: {
      const std::size_t unit = block.size % 8 == 0 ? 8 : block.size % 3 == 0 ? 3 : 1;
      return std::calloc(block.size / unit, unit);
    }
    case Origin::kRealloc:
      return std::realloc(nullptr, block.size);
    case Origin::kMemalign:
      return memalign(block.alignment, block.size);
    case Origin::kPosixMemalign: {
      void* result = nullptr;
      const int error = posix_memalign(&result, block.alignment, block.size);
      if (error != 0)
        fail("posix_memalign(%zu, %zu): error %d", block.alignment, block.size, error);
      return result;
    }
    case Origin::kAlignedAlloc:
      return aligned_alloc(block.alignment, block.size);
    case Origin::kNew:
      return ::operator new(block.size);
    case Origin::kAlignedNew:
      return ::operator new (block.size, std::align_val_t{block.alignment});
  }
  return nullptr;
}

Block allocate(Random& random) {
  static constexpr Origin kOften[] = {Origin::kMalloc, Origin::kMalloc, Origin::kMalloc,
                                      Origin::kMalloc, Origin::kCalloc, Origin::kNew};
  Block block;
  block.origin = random.one_in(3) ? static_cast<Origin>(random.below(kOrigins))
                                  : kOften[random.below(std::size(kOften))];
  block.size = random.size();
  block.tag = random.next();
  const std::size_t alignment = random.alignment();
  const bool takes_alignment =
      block.origin == Origin::kMemalign || block.origin == Origin::kPosixMemalign ||
      block.origin == Origin::kAlignedAlloc || block.origin == Origin::kAlignedNew;
  block.alignment = takes_alignment ? alignment : natural_alignment(block.size);
  const bool all_bytes = random.one_in(8);
  block.bytes = static_cast<unsigned char*>(raw_allocate(block));
  verify_address(block);
  g_live += block.size;
  if (block.origin == Origin::kCalloc) verify_zero(block);
  block.filled = block.size;
  if (all_bytes && !block.is_from_new()) use_all_bytes(block);
  fill(block);
  return block;
}

void release(Block& block, const char* when) {
  verify(block, when);
  errno = kErrnoMark;
  if (block.origin == Origin::kNew) {
    ::operator delete(block.bytes);
  } else if (block.origin == Origin::kAlignedNew) {
    ::operator delete (block.bytes, std::align_val_t{block.alignment});
  } else {
    std::free(block.bytes);
  }
  if (errno != kErrnoMark)
    fail("free of a %s of %zu bytes changes errno", block.name(), block.size);
  g_live -= block.size;
  block = Block{};
}

void resize(Block& block, Random& random) {
  // Half of them small steps, as a growing buffer does; half to a size of any kind.
  std::size_t size = random.one_in(2) ? random.size() : block.size + block.size / 4 + 1;
  if (size == 0 || size > (std::size_t{2} << kMaxSizeBits)) size = 1;  // realloc(p, 0) frees
  const std::uint64_t tag = random.next();
  verify(block, "before realloc");
  auto* moved = static_cast<unsigned char*>(std::realloc(block.bytes, size));
  if (moved == nullptr) fail("realloc from %zu to %zu bytes gives NULL", block.size, size);
  const std::size_t kept = std::min(block.filled, size);
  g_live += size - block.size;
  block.bytes = moved;
  block.size = size;
  verify(block, kept, "after realloc");
  block.origin = Origin::kRealloc;
  block.alignment = natural_alignment(size);
  verify_address(block);
  block.filled = size;
  block.tag = tag;
  fill(block);
}

// Objects on their way to another thread, which checks and frees them.
class Mailbox {
 public:
  // False when the box is full: the sender must free the object itself.
  bool post(const Block& block, std::size_t budget) {
    std::lock_guard<std::mutex> guard(lock_);
    if (blocks_.size() >= kMaxMail || bytes_ + block.size > budget) return false;
    push(block);
    return true;
  }
  void bequeath(const std::vector<Block>& blocks) {
    std::lock_guard<std::mutex> guard(lock_);
    for (const Block& block : blocks) push(block);
  }
  std::vector<Block> take_all() {
    std::lock_guard<std::mutex> guard(lock_);
    bytes_ = 0;
    return std::exchange(blocks_, {});
  }

 private:
  void push(const Block& block) {
    blocks_.push_back(block);
    bytes_ += block.size;
  }
  std::mutex lock_;
  std::vector<Block> blocks_;
  std::size_t bytes_ = 0;
};

// Objects that stay, whatever becomes of the threads, until another takes their place: some for a
// moment, some for most of the run.
class Archive {
 public:
  // Returns what was there before, perhaps nothing.
  Block swap(std::size_t slot, Block block) {
    std::lock_guard<std::mutex> guard(locks_[slot % locks_.size()]);
    std::swap(blocks_[slot], block);
    return block;
  }
  static std::size_t slot(Random& random) {
    return random.below(std::size_t{1} << random.below(kArchiveBits + 1));
  }
  std::vector<Block> take_all() { return std::exchange(blocks_, {}); }

 private:
  std::array<std::mutex, 64> locks_;
  std::vector<Block> blocks_ = std::vector<Block>(std::size_t{1} << kArchiveBits);
};

// What the threads share.
struct Places {
  std::vector<Mailbox> mailboxes;
  Archive archive;
};

// An object that a thread_local destructor frees, after the thread's function has returned.
struct Keepsake {
  Block block;
  ~Keepsake() {
    if (block.bytes == nullptr) return;
    release(block, "in a thread_local destructor");
    Random random(reinterpret_cast<std::uintptr_t>(this));
    for (int i = 0; i < 4; ++i) {
      Block late = allocate(random);
      release(late, "in a thread_local destructor");
    }
  }
};
thread_local Keepsake t_keepsake;

struct Totals {
  std::uint64_t operations = 0, allocations = 0, reallocations = 0, frees = 0, sent = 0;
  std::uint64_t bytes = 0, checksum = 0;

  void note(const Block& block) {
    bytes += block.size;
    checksum += mix(block.tag + block.size);
  }
  void add(const Totals& other) {
    operations += other.operations;
    allocations += other.allocations;
    reallocations += other.reallocations;
    frees += other.frees;
    sent += other.sent;
    bytes += other.bytes;
    checksum += other.checksum;
  }
};

enum class Mode : std::uint8_t { kPlain, kSabotage, kSoak };

// The deeds of one thread. What it decides depends on its own random numbers and its own table
// only; what comes from others never changes a decision, which keeps the totals reproducible.
class Life {
 public:
  Life(Places& places, std::size_t slot, std::uint64_t seed, Mode mode)
      : places_(places),
        slot_(slot),
        random_(seed),
        mode_(mode),
        budget_(kLiveBudget / places.mailboxes.size() / 2),
        table_(kTableSize) {}

  // Ends after so many operations, or soon after the deadline.
  Totals run(std::uint64_t operations, Clock::time_point deadline) {
    t_keepsake.block = make();
    std::uint64_t i = 0;
    for (; i < operations; ++i) {
      if (i % 16 == 0) {
        g_operations += 16;
        read_mail();
        if (Clock::now() >= deadline) break;
      }
      if (mode_ == Mode::kSabotage && i >= operations / 2 && sabotage()) mode_ = Mode::kPlain;
      if (mode_ == Mode::kSoak) soak();
      step();
    }
    ++totals_.frees;  // the keepsake's
    leave();
    totals_.operations += i;
    return totals_;
  }

 private:
  Block make() {
    Block block = allocate(random_);
    ++totals_.allocations;
    totals_.note(block);
    return block;
  }

  void drop(Block& block) {
    live_ -= block.size;
    ++totals_.frees;
    release(block, "before free");
  }

  void step() {
    Block& block = table_[random_.below(kTableSize)];
    const std::size_t action = random_.below(100);
    if (block.bytes == nullptr) {
      block = make();
      live_ += block.size;
    } else if (action < 40) {
      drop(block);
    } else if (action < 60 && !block.is_from_new()) {
      live_ -= block.size;
      resize(block, random_);
      live_ += block.size;
      ++totals_.reallocations;
      totals_.note(block);
    } else if (action < 79) {
      send(block);
    } else if (action < 80 && block.size <= kMaxArchived) {
      archive(block);
    } else {
      verify(block, "while it lives");
    }
    for (std::size_t i = 0; live_ > budget_; ++i)
      if (table_[i].bytes != nullptr) drop(table_[i]);
  }

  void send(Block& block) {
    live_ -= block.size;
    ++totals_.sent;
    ++totals_.frees;
    Mailbox& box = places_.mailboxes[random_.below(places_.mailboxes.size())];
    if (box.post(block, budget_)) {
      block = Block{};
    } else {
      release(block, "before free");
    }
  }

  void archive(Block& block) {
    live_ -= block.size;
    ++totals_.frees;
    Block before = places_.archive.swap(Archive::slot(random_), std::exchange(block, {}));
    if (before.bytes != nullptr) release(before, "after a long time");
  }

  void read_mail() {
    for (Block& block : places_.mailboxes[slot_].take_all()) release(block, "in another thread");
  }

  // Half of what is left outlives the thread: its successor finds it in the mailbox.
  void leave() {
    std::vector<Block> legacy;
    for (std::size_t i = 0; i < kTableSize; ++i) {
      if (table_[i].bytes == nullptr) continue;
      if (i % 2 == 0) {
        drop(table_[i]);
      } else {
        ++totals_.frees;
        legacy.push_back(table_[i]);
      }
    }
    places_.mailboxes[slot_].bequeath(legacy);
  }

  bool sabotage() {
    for (const Block& block : table_) {
      if (block.filled == 0) continue;
      block.bytes[block.filled / 2] ^= 0x10;
      return true;
    }
    return false;
  }

  void soak() {
    if (random_.one_in(kOpsPerTrim)) malloc_trim(0);
    if (random_.one_in(kOpsPerFork)) fork_and_wait();
  }

  // The child is this thread alone: it has this thread's table and the heap, but perhaps another's
  // locks.
  void fork_and_wait() {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kForkSeconds);
      for (Block& block : table_) {
        if (block.bytes == nullptr) block = allocate(random_);
        verify(block, "in a forked child");
        if (!block.is_from_new()) resize(block, random_);
      }
      for (Block& block : table_) release(block, "in a forked child");
      _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
      fail("a forked child (%d) ends with wait status 0x%x", static_cast<int>(child),
           static_cast<unsigned>(status));
  }

  Places& places_;
  const std::size_t slot_;
  Random random_;
  Mode mode_;
  const std::size_t budget_;
  std::vector<Block> table_;
  std::size_t live_ = 0;
  Totals totals_;
};

struct Arguments {
  std::size_t threads = 0;
  std::uint64_t operations = 0;  // 0: run for `seconds`
  std::uint64_t seconds = 0;
  std::uint64_t seed = 1;
  std::uint64_t sample_seconds = 0;
  Mode mode = Mode::kPlain;
};

// Resident memory in bytes. Without stdio, which allocates.
std::size_t resident_bytes() {
  char text[100] = {};
  const int file = open("/proc/self/statm", O_RDONLY);
  if (file < 0 || read(file, text, sizeof text - 1) <= 0) fail("/proc/self/statm: not readable");
  close(file);
  std::size_t pages = 0;
  if (std::sscanf(text, "%*s %zu", &pages) != 1) fail("/proc/self/statm says %s", text);
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

// Starts a life in each slot, and the next one as soon as one has ended.
class Town {
 public:
  explicit Town(const Arguments& arguments)
      : arguments_(arguments),
        places_{std::vector<Mailbox>(arguments.threads), {}},
        threads_(arguments.threads),
        lives_started_(arguments.threads) {
    if (arguments.operations == 0) deadline_ = start_ + std::chrono::seconds(arguments.seconds);
  }

  Totals run() {
    std::size_t running = arguments_.threads;
    for (std::size_t slot = 0; slot < arguments_.threads; ++slot) start(slot);
    while (running > 0) {
      const std::size_t slot = wait_for_an_end();
      threads_[slot].join();
      if (has_another(slot)) {
        start(slot);
      } else {
        --running;
      }
    }
    for (Mailbox& mailbox : places_.mailboxes)
      for (Block& block : mailbox.take_all()) release(block, "after all threads");
    for (Block& block : places_.archive.take_all())
      if (block.bytes != nullptr) release(block, "after all threads");
    return totals_;
  }

 private:
  bool has_another(std::size_t slot) const {
    if (arguments_.operations == 0) return Clock::now() < deadline_;
    return lives_started_[slot] < kLivesPerSlot;
  }

  void start(std::size_t slot) {
    const std::uint64_t number = lives_started_[slot]++;
    const bool is_plain =
        arguments_.mode == Mode::kSabotage && (slot != 0 || number != kLivesPerSlot / 2);
    const Mode mode = is_plain ? Mode::kPlain : arguments_.mode;
    threads_[slot] = std::thread([this, slot, number, mode] {
      const std::uint64_t lives = arguments_.threads * kLivesPerSlot;
      const std::uint64_t seed = mix(arguments_.seed) + mix(slot * 1000003 + number);
      const std::uint64_t operations =
          arguments_.operations == 0 ? timed_life(seed) : arguments_.operations / lives;
      // On the heap: its table is then one more object that crosses a thread's end.
      auto life = std::make_unique<Life>(places_, slot, seed, mode);
      const Totals totals = life->run(operations, deadline_);
      std::lock_guard<std::mutex> guard(lock_);
      totals_.add(totals);
      ended_.push_back(slot);
      an_end_.notify_one();
    });
  }

  // Most threads come and go; some stay for long.
  static std::uint64_t timed_life(std::uint64_t seed) {
    Random random(~seed);
    const std::uint64_t least = std::uint64_t{1} << random.below(kTimedLifeBits + 1);
    return least + random.below(least);
  }

  std::size_t wait_for_an_end() {
    std::unique_lock<std::mutex> guard(lock_);
    const auto is_ended = [this] { return !ended_.empty(); };
    if (arguments_.mode == Mode::kSoak) {
      do sample();
      while (!an_end_.wait_until(guard, next_sample_, is_ended));
    } else {
      an_end_.wait(guard, is_ended);
    }
    const std::size_t slot = ended_.back();
    ended_.pop_back();
    return slot;
  }

  void sample() {
    const auto now = Clock::now();
    if (now < next_sample_) return;
    next_sample_ = now + std::chrono::seconds(arguments_.sample_seconds);
    const std::chrono::duration<double> seconds = now - start_;
    std::printf("sample %.1f %zu %zu %llu\n", seconds.count(), g_live.load(), resident_bytes(),
                static_cast<unsigned long long>(g_operations.load()));
    std::fflush(stdout);
  }

  const Arguments arguments_;
  Places places_;
  std::vector<std::thread> threads_;
  std::vector<std::uint64_t> lives_started_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point next_sample_ = start_ + std::chrono::seconds(arguments_.sample_seconds);
  std::mutex lock_;
  std::condition_variable an_end_;
  std::vector<std::size_t> ended_;
  Totals totals_;
};

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: churn THREADS OPERATIONS|SECONDSs [SEED [sabotage|soak=SECONDS]]\n");
  std::exit(2);
}

std::uint64_t number(const std::string& text) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0') usage();
  return value;
}

Arguments parse(int argc, char** argv) {
  if (argc < 3 || argc > 5) usage();
  Arguments arguments;
  arguments.threads = number(argv[1]);
  std::string amount = argv[2];
  if (!amount.empty() && amount.back() == 's') {
    amount.pop_back();
    arguments.seconds = number(amount);
  } else {
    arguments.operations = number(amount);
    if (arguments.operations == 0) usage();
  }
  if (argc > 3) arguments.seed = number(argv[3]);
  if (argc > 4) {
    const std::string mode = argv[4];
    if (mode == "sabotage") {
      arguments.mode = Mode::kSabotage;
    } else if (mode.starts_with("soak=")) {
      arguments.mode = Mode::kSoak;
      arguments.sample_seconds = number(mode.substr(5));
      if (arguments.sample_seconds == 0) usage();
    } else {
      usage();
    }
  }
  if (arguments.threads == 0 || arguments.threads > 4096) usage();
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  const Totals totals = Town(arguments).run();
  if (totals.allocations != totals.frees)
    fail("%llu objects allocated, %llu freed", static_cast<unsigned long long>(totals.allocations),
         static_cast<unsigned long long>(totals.frees));
  const auto print = [](const char* name, std::uint64_t value) {
    std::printf("%s %llu\n", name, static_cast<unsigned long long>(value));
  };
  print("operations", totals.operations);
  print("allocations", totals.allocations);
  print("reallocations", totals.reallocations);
  print("sent to another thread", totals.sent);
  print("bytes asked for", totals.bytes);
  print("checksum", totals.checksum);
  return 0;
}
