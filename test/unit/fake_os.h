// A kernel for the tests: it counts and records the calls, refuses those it is told to refuse, and
// aborts when an argument breaks the contract of core/os.h, or when the caller holds a lock.
//
// Addresses come from regions set aside beforehand, so that a test knows which chunks are
// neighbours. Nothing in a region is accessible but what reserve() has handed out. The functions of
// struct Os have no context: there is one FakeOs at a time, and its destructor takes its state
// along.
//
// Thread safety: the functions of the tables may be called from any thread. They use relaxed
// atomics only, so that they order nothing that the code under test ought to order itself, but for
// the clock: a cache is robbed because its owner has done nothing for long (note 7 of
// docs/locks.md). Where other threads let time go by, an owner has to call pass_ms() after each
// free: only the newest object of a class is safe without.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/lock.h"
#include "core/os.h"

namespace minitc::test {

// kMetadata: a reserve() through metadata_os().
enum class OsCall : std::uint8_t {
  kReserve,
  kMetadata,
  kRelease,
  kDecommit,
  kOffer,
  kMove,
  kRenew,
  kRead
};
inline constexpr std::size_t kOsCalls = 8;
// What a refused decommit has done to the range: nothing, dropped its first half before it gave up,
// or written to its first byte, as core/os.cc does to find out whether it will read as zero.
enum class Refused : std::uint8_t { kNothing, kHalf, kScribble };
inline constexpr std::size_t kAlways = SIZE_MAX / 2;

class FakeOs {
 public:
  // Where each new chunk lies: right behind the last, right before it, or behind a hole.
  enum class Layout : std::uint8_t { kRising, kFalling, kHoles };

  explicit FakeOs(std::size_t page_bytes = 4096, Layout layout = Layout::kRising) {
    if (current_ != nullptr) fail_test("two at a time");
    // A page smaller than the real one cannot be faked.
    page_bytes_ = std::max(page_bytes, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    layout_ = layout;
    static char* const starts[] = {Region::set_aside(), Region::set_aside()};
    for (std::size_t i = 0; i < regions_.size(); ++i) regions_[i].start = starts[i];
    current_ = this;
  }
  ~FakeOs() {
    for (const Region& region : regions_) {
      const bool falling = layout_ == Layout::kFalling;
      region.clear(falling ? region.start + Region::kBytes - region.used : region.start);
    }
    current_ = nullptr;
  }
  FakeOs(const FakeOs&) = delete;
  FakeOs& operator=(const FakeOs&) = delete;

  Os os() const {
    return {.reserve = reserve_pages,
            .release = release,
            .decommit = decommit,
            .offer = offer,
            .want_huge_pages = want_huge_pages,
            .populate = populate,
            .can_read = can_read,
            .move = move,
            .renew = renew,
            .now_ms = now_ms,
            .processors = [] { return current_->processors_; },
            .page_bytes = page_bytes_};
  }
  // The same with a region of its own, so that metadata does not come between chunks of pages.
  Os metadata_os() const {
    Os os = this->os();
    os.reserve = reserve_metadata;
    return os;
  }

  // --- What is refused --------------------------------------------------------------------------

  // Refuses the `nth` call from now on (1 is the next) and those after it, `times` in all.
  void fail(OsCall call, std::size_t nth, std::size_t times = 1) { plan_of(call).set(nth, times); }
  // The same, counting calls of every kind.
  void fail_any(std::size_t nth, std::size_t times = 1) { any_.set(nth, times); }
  // Refuses one call of every kind in `n` at random; 0: none.
  void fail_one_in(std::size_t n, std::uint64_t seed) {
    dice_ = seed;
    one_in_ = n;
  }
  // Refuses requests for more pages than this at a time.
  void refuse_above(std::size_t bytes) { largest_ = bytes; }
  // Refuses what would bring all that is mapped, metadata included, above this: a kernel that
  // charges every mapping, as with vm.overcommit_memory=2, and is near its limit.
  void refuse_beyond(std::size_t bytes) { most_mapped_ = bytes; }
  // Refuses to take back what has a part of this range: the program has locked it.
  void refuse_range(const void* start, std::size_t bytes) {
    locked_start_ = reinterpret_cast<std::uintptr_t>(start);
    locked_bytes_ = bytes;
  }
  // Refuses requests for so many bytes; 0: none.
  void refuse_size(std::size_t bytes) { refused_size_ = bytes; }
  void stop_failing() {
    for (Plan& plan : plans_) plan.set(1, 0);
    any_.set(1, 0);
    one_in_ = 0;
    largest_ = SIZE_MAX;
    most_mapped_ = SIZE_MAX;
    refused_size_ = 0;
    refuse_range(nullptr, 0);
  }
  void refused_decommit_does(Refused what) { refused_decommit_ = what; }
  // What becomes of a move that is to fail: kRefused unless set otherwise.
  void failed_move_is(Move result) { failed_move_ = result; }
  void set_processors(unsigned count) { processors_ = count; }
  // Lets time go by, if only the moment that it takes to call this; it stands still otherwise. What
  // was done before is visible to who looks at the clock later, as it would be after so long.
  void pass_ms(std::uint32_t ms) { now_ms_.fetch_add(ms, std::memory_order_release); }
  // Called at the end of each decommit, before it returns.
  void at_decommit(void (*hook)()) { hook_ = hook; }
  // Called in each move that loses addresses, which then are anyone's.
  void at_loss(void (*hook)(void* start, std::size_t bytes)) { loss_hook_ = hook; }
  // Called in each reserve of metadata.
  void at_metadata(void (*hook)()) { metadata_hook_ = hook; }

  // --- What happened ----------------------------------------------------------------------------

  std::size_t calls(OsCall call) const { return plans_[static_cast<std::size_t>(call)].calls; }
  std::size_t calls() const { return any_.calls; }
  std::size_t refused() const { return refused_; }
  // Of what was reserved, and neither released nor lost.
  std::size_t mapped_bytes() const { return regions_[0].mapped; }
  std::size_t metadata_bytes() const { return regions_[1].mapped; }
  // Of pages whose release was refused.
  std::size_t stuck_bytes() const { return stuck_bytes_; }
  std::size_t last_reserve_bytes() const { return last_reserve_bytes_; }
  std::size_t decommitted_bytes() const { return decommitted_bytes_; }
  std::size_t offered_bytes() const { return offered_bytes_; }
  // Of ranges for which huge pages were asked for, and of those for which none were.
  std::size_t huge_bytes(bool wanted) const { return wanted ? huge_bytes_ : no_huge_bytes_; }
  std::size_t populated_bytes() const { return populated_bytes_; }
  std::size_t page_bytes() const { return page_bytes_; }
  bool owns(const void* ptr) const { return regions_[0].holds(ptr, 1); }

 private:
  using Counter = std::atomic<std::size_t>;

  struct Plan {
    Counter calls{0};
    Counter first{0};
    Counter end{0};

    void set(std::size_t nth, std::size_t times) {
      first = calls + nth;
      end = first + times;
    }
    bool refuses_next() {
      const std::size_t n = calls.fetch_add(1, std::memory_order_relaxed) + 1;
      return n >= first.load(std::memory_order_relaxed) && n < end.load(std::memory_order_relaxed);
    }
  };

  struct Region {
    static constexpr std::size_t kBytes = std::size_t{8} << 30;
    // Of one leaf of the page map, so that the first 4 GiB need one whatever the kernel does.
    static constexpr std::size_t kAlignment = kPageBytes << kLeafShift;
    char* start = nullptr;
    Counter used{0};
    Counter mapped{0};

    // Once in a process: an emulator may keep a record of each page that was ever mapped.
    static char* set_aside() {
      const char* const memory = map(nullptr, kBytes + kAlignment, 0);
      return reinterpret_cast<char*>(
          align_up(reinterpret_cast<std::uintptr_t>(memory), kAlignment));
    }
    // Puts [first, first + used) back as it was set aside.
    void clear(char* first) const {
      if (used != 0) map(first, used, MAP_FIXED);
    }
    // Directly: the sanitizers need not know, and would spend most of a test's time on it.
    static char* map(char* at, std::size_t bytes, int flags) {
      const long memory = syscall(SYS_mmap, at, bytes, PROT_NONE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0L);
      if (memory == -1) fail_test("no address space");
      return reinterpret_cast<char*>(memory);
    }
    bool holds(const void* ptr, std::size_t bytes) const {
      const char* const p = static_cast<const char*>(ptr);
      return p >= start && bytes <= kBytes && p <= start + (kBytes - bytes);
    }
  };

  // What is reserved, so that release() can tell.
  struct Chunk {
    std::atomic<char*> start{nullptr};
    Counter bytes{0};
  };

  [[noreturn]] static void fail_test(const char* why) {
    fprintf(stderr, "FakeOs: %s\n", why);
    abort();
  }
  static void require(bool holds, const char* why) {
    if (!holds) fail_test(why);
  }

  // Every call that does something to memory.
  static FakeOs& enter() {
    require(!inside_critical_section(), "a system call under a lock");
    return *current_;
  }

  Plan& plan_of(OsCall call) { return plans_[static_cast<std::size_t>(call)]; }

  bool refuses(OsCall call) {
    const bool by_kind = plan_of(call).refuses_next();
    const bool by_number = any_.refuses_next();
    const std::size_t one_in = one_in_.load(std::memory_order_relaxed);
    const bool by_chance = one_in != 0 && roll() % one_in == 0;
    if (!by_kind && !by_number && !by_chance) return false;
    refused_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  std::uint64_t roll() {
    std::uint64_t n = dice_.fetch_add(0x9e3779b97f4a7c15U, std::memory_order_relaxed);
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9U;
    return n ^ (n >> 29);
  }
  bool aligned(const void* start, std::size_t bytes) const {
    return ((reinterpret_cast<std::uintptr_t>(start) | bytes) & (page_bytes_ - 1)) == 0;
  }
  bool has_locked(const void* start, std::size_t bytes) const {
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(start);
    return at < locked_start_ + locked_bytes_ && at + bytes > locked_start_;
  }
  bool in_a_region(const void* start, std::size_t bytes) const {
    return regions_[0].holds(start, bytes) || regions_[1].holds(start, bytes);
  }

  static void* reserve_pages(std::size_t bytes) {
    return enter().reserve(OsCall::kReserve, current_->regions_[0], bytes);
  }
  static void* reserve_metadata(std::size_t bytes) {
    return enter().reserve(OsCall::kMetadata, current_->regions_[1], bytes);
  }

  void* reserve(OsCall call, Region& region, std::size_t bytes) {
    require(bytes != 0 && bytes % kPageBytes == 0, "reserve: not a number of pages");
    const bool for_pages = call == OsCall::kReserve;
    if (for_pages) last_reserve_bytes_.store(bytes, std::memory_order_relaxed);
    void (*const hook)() = metadata_hook_.load(std::memory_order_relaxed);
    if (!for_pages && hook != nullptr) hook();
    if (refuses(call)) return nullptr;
    const bool too_large =
        (for_pages && bytes > largest_.load(std::memory_order_relaxed)) || bytes > Region::kBytes;
    const std::size_t mapped = mapped_bytes() + metadata_bytes();
    const bool too_much = mapped + bytes > most_mapped_.load(std::memory_order_relaxed);
    if (too_large || too_much || bytes == refused_size_.load(std::memory_order_relaxed)) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      return nullptr;
    }
    char* start = for_pages ? take_lost(bytes) : nullptr;
    if (start == nullptr) start = take_new(region, bytes);
    require(mprotect(start, align_up(bytes, page_bytes_), PROT_READ | PROT_WRITE) == 0,
            "mprotect fails");
    const std::size_t slot = chunk_count_.fetch_add(1, std::memory_order_relaxed);
    require(slot < chunks_.size(), "reserve: too many chunks to record");
    chunks_[slot].start.store(start, std::memory_order_relaxed);
    chunks_[slot].bytes.store(bytes, std::memory_order_relaxed);
    region.mapped.fetch_add(bytes, std::memory_order_relaxed);
    return start;
  }

  char* take_new(Region& region, std::size_t bytes) {
    const std::size_t length = align_up(bytes, std::max(page_bytes_, kPageBytes));
    const std::size_t hole = layout_ == Layout::kHoles ? std::max(page_bytes_, kPageBytes) : 0;
    const std::size_t used = region.used.fetch_add(length + hole, std::memory_order_relaxed);
    require(used + length + hole <= Region::kBytes, "reserve: the region is used up");
    return layout_ == Layout::kFalling ? region.start + Region::kBytes - used - length
                                       : region.start + used;
  }

  // The addresses that were lost last, if they are so many and nobody has them.
  char* take_lost(std::size_t bytes) {
    std::size_t expected = bytes;
    const bool fits = lost_.bytes.compare_exchange_strong(expected, 0);
    return fits ? lost_.start.load(std::memory_order_relaxed) : nullptr;
  }

  static bool release(void* start, std::size_t bytes) {
    FakeOs& self = enter();
    if (self.refuses(OsCall::kRelease)) {
      if (self.regions_[0].holds(start, bytes)) self.stuck_bytes_ += bytes;
      return false;
    }
    for (std::size_t i = self.chunk_count_.load(std::memory_order_relaxed); i-- != 0;) {
      Chunk& chunk = self.chunks_[i];
      if (chunk.start.load(std::memory_order_relaxed) != start) continue;
      require(chunk.bytes.load(std::memory_order_relaxed) == bytes, "release: not all of a chunk");
      chunk.start.store(nullptr, std::memory_order_relaxed);
      for (Region& region : self.regions_) {
        if (region.holds(start, bytes)) region.mapped.fetch_sub(bytes, std::memory_order_relaxed);
      }
      return mprotect(start, align_up(bytes, self.page_bytes_), PROT_NONE) == 0;
    }
    fail_test("release: not a chunk");
  }

  static bool decommit(void* start, std::size_t bytes) {
    FakeOs& self = enter();
    require(bytes != 0 && self.aligned(start, bytes), "decommit: not whole kernel pages");
    require(self.in_a_region(start, bytes), "decommit: not our memory");
    const bool refused = self.refuses(OsCall::kDecommit) || self.has_locked(start, bytes);
    const Refused what = self.refused_decommit_.load(std::memory_order_relaxed);
    const std::size_t dropped = !refused                 ? bytes
                                : what == Refused::kHalf ? align_down(bytes / 2, self.page_bytes_)
                                                         : 0;
    if (dropped != 0) self.drop(start, dropped);
    if (refused && what == Refused::kScribble) *static_cast<char*>(start) = 1;
    if (!refused) self.decommitted_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    if (void (*const hook)() = self.hook_.load(std::memory_order_relaxed); hook != nullptr) hook();
    return !refused;
  }

  // As a kernel that is short of memory half of the time: it takes the second half.
  static bool offer(void* start, std::size_t bytes) {
    FakeOs& self = enter();
    require(bytes != 0 && self.aligned(start, bytes), "offer: not whole kernel pages");
    require(self.in_a_region(start, bytes), "offer: not our memory");
    if (self.refuses(OsCall::kOffer)) return false;
    const std::size_t kept = align_up(bytes / 2, self.page_bytes_);
    if (kept != bytes) self.drop(static_cast<char*>(start) + kept, bytes - kept);
    self.offered_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    return true;
  }

  static void want_huge_pages(void* start, std::size_t bytes, bool wanted) {
    FakeOs& self = enter();
    require(self.in_a_region(start, bytes), "want_huge_pages: not our memory");
    (wanted ? self.huge_bytes_ : self.no_huge_bytes_).fetch_add(bytes, std::memory_order_relaxed);
  }

  static void populate(void* start, std::size_t bytes) {
    FakeOs& self = enter();
    require(bytes != 0 && self.aligned(start, bytes), "populate: not whole kernel pages");
    require(self.in_a_region(start, bytes), "populate: not our memory");
    self.populated_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }

  static bool can_read(const void* page) {
    FakeOs& self = enter();
    require(self.in_a_region(page, 1), "can_read: not our memory");
    return !self.refuses(OsCall::kRead);
  }

  static std::uint32_t now_ms() { return current_->now_ms_.load(std::memory_order_acquire); }

  // As mremap does it, but for the copy.
  static Move move(void* from, std::size_t bytes, void* to, std::size_t to_bytes) {
    FakeOs& self = enter();
    require(bytes != 0 && bytes <= to_bytes, "move: the target is too short");
    require(self.aligned(from, bytes) && self.aligned(to, to_bytes),
            "move: not whole kernel pages");
    require(self.in_a_region(from, bytes) && self.in_a_region(to, to_bytes),
            "move: not our memory");
    const char* const a = static_cast<char*>(from);
    const char* const b = static_cast<char*>(to);
    require(a + bytes <= b || b + to_bytes <= a, "move: the ranges overlap");
    const Move result = self.refuses(OsCall::kMove)
                            ? self.failed_move_.load(std::memory_order_relaxed)
                            : Move::kDone;
    self.drop(to, to_bytes);
    if (result == Move::kTargetLost) self.lose(to, to_bytes);
    if (result == Move::kTargetLost || result == Move::kRefused) return result;
    memcpy(to, from, bytes);
    self.drop(from, bytes);
    if (result == Move::kSourceLost) self.lose(from, bytes);
    return result;
  }

  static bool renew(void* start, std::size_t bytes) {
    FakeOs& self = enter();
    require(bytes != 0 && self.aligned(start, bytes), "renew: not whole kernel pages");
    require(self.in_a_region(start, bytes), "renew: not our memory");
    if (self.refuses(OsCall::kRenew)) return false;
    self.drop(start, bytes);
    return true;
  }

  void drop(void* start, std::size_t bytes) {
    require(madvise(start, bytes, MADV_DONTNEED) == 0, "madvise fails");
  }
  void lose(void* start, std::size_t bytes) {
    require(mprotect(start, bytes, PROT_NONE) == 0, "mprotect fails");
    regions_[0].mapped.fetch_sub(bytes, std::memory_order_relaxed);
    lost_.start.store(static_cast<char*>(start), std::memory_order_relaxed);
    lost_.bytes.store(bytes);
    auto* const hook = loss_hook_.load(std::memory_order_relaxed);
    if (hook != nullptr) hook(start, bytes);
  }

  static inline FakeOs* current_ = nullptr;

  std::size_t page_bytes_ = 0;
  Layout layout_ = Layout::kRising;
  std::array<Region, 2> regions_;
  std::array<Plan, kOsCalls> plans_;
  Plan any_;
  Counter one_in_{0};
  std::atomic<std::uint64_t> dice_{0};
  Counter largest_{SIZE_MAX};
  Counter most_mapped_{SIZE_MAX};
  Counter refused_size_{0};
  std::atomic<std::uintptr_t> locked_start_{0};
  Counter locked_bytes_{0};
  std::atomic<Refused> refused_decommit_{Refused::kNothing};
  std::atomic<Move> failed_move_{Move::kRefused};
  std::atomic<void (*)()> hook_{nullptr};
  std::atomic<void (*)(void*, std::size_t)> loss_hook_{nullptr};
  std::atomic<void (*)()> metadata_hook_{nullptr};
  Counter refused_{0};
  Counter last_reserve_bytes_{0};
  Counter decommitted_bytes_{0};
  Counter offered_bytes_{0};
  Counter huge_bytes_{0};
  Counter no_huge_bytes_{0};
  Counter populated_bytes_{0};
  std::atomic<std::uint32_t> now_ms_{0};
  unsigned processors_ = 4;
  Counter stuck_bytes_{0};
  std::array<Chunk, 4096> chunks_;
  Counter chunk_count_{0};
  Chunk lost_;
};

}  // namespace minitc::test
