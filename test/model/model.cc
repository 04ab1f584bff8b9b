#include "test/model/model.h"

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "core/bad_pointer.h"
#include "core/fork.h"
#include "core/heap.h"
#include "core/stats.h"
#include "test/unit/support.h"

namespace minitc {
namespace test {
namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "model: %s\n", what);
  abort();
}

// What the heap said of a bad pointer.
struct Report {
  std::size_t count = 0;
  Caller caller = Caller::kFree;
  const void* ptr = nullptr;
  Finding finding = {Verdict::kLive};
};
// An explicit instantiation may name a private member.
template <MetadataArena Heap::*kMember>
struct Private {
  friend auto arena_member() { return kMember; }
};
auto arena_member();
template struct Private<&Heap::arena_>;

// Where reports go while this thread hands over bad pointers; null while it does not.
thread_local Report* t_report = nullptr;

}  // namespace
}  // namespace test

// In place of core/bad_pointer.cc, which reports once per call site, on stderr.
void BadPointers::report(Call call, const void* ptr, Finding finding) {
  test::expect(test::t_report != nullptr, "a pointer that the program owns is called bad");
  *test::t_report = {test::t_report->count + 1, call.caller, ptr, finding};
}

namespace test {

namespace {

// Bytes that tell objects apart, and the places in one: the same sequence for all, begun elsewhere.
class Pattern {
 public:
  static void fill(char* start, std::size_t bytes, std::size_t phase) {
    for (std::size_t at = 0, n = 0; at < bytes; at += n) {
      const std::string_view piece = piece_at(at + phase, bytes - at);
      n = piece.size();
      memcpy(start + at, piece.data(), n);
    }
  }
  static bool holds(const char* start, std::size_t bytes, std::size_t phase) {
    for (std::size_t at = 0, n = 0; at < bytes; at += n) {
      const std::string_view piece = piece_at(at + phase, bytes - at);
      n = piece.size();
      if (memcmp(start + at, piece.data(), n) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kPeriod = 65521;  // no multiple of a page or of another size

  static std::string_view piece_at(std::size_t place, std::size_t most) {
    static const std::array<char, kPeriod> sequence = [] {
      std::array<char, kPeriod> bytes;
      Random random(1);
      for (char& byte : bytes) byte = static_cast<char>(random.next());
      return bytes;
    }();
    return std::string_view(sequence.data(), kPeriod).substr(place % kPeriod, most);
  }
};

// Several threads' caches are driven by one thread, which takes on one after the other.
class Model {
 public:
  Model(Choices& choices, const ModelLimits& limits)
      : choices_(choices),
        limits_(limits),
        page_bytes_(choose_page_bytes(choices)),
        fake_(page_bytes_, choose_layout(choices)),
        options_(choose_options(choices)),
        heap_(fake_.os(), options_) {
    caches_.fill(&g_no_cache);
  }

  void run() {
    for (std::size_t i = 0; i < limits_.steps && !choices_.ended(); ++i) {
      step();
      if (i % limits_.check_every == 0) check();
    }
    wind_up();
  }

 private:
  struct Object {
    std::size_t usable;
    std::size_t phase;
  };
  using Map = std::map<char*, Object>;
  static constexpr std::size_t kMost = 64;  // objects that one step allocates or frees
  static constexpr std::size_t kThreads = 4;

  void step() {
    const std::size_t kind = choices_.below(256);
    const bool full = live_.size() > limits_.objects || live_bytes_ > limits_.bytes;
    if (kind < 1) {
      heap_->trim();
    } else if (kind < 6) {
      change_refusals();
    } else if (kind < 16) {
      become(choices_.below(kThreads));
    } else if (kind < 19) {
      end_thread_or_begin();
    } else if (kind < 20) {
      fork();
    } else if (kind < 24) {
      fake_.pass_ms(kTickMs << choices_.below(8));
    } else if (live_.empty() || (kind < 110 && !full)) {
      allocate();
    } else if (kind < 132) {
      err();
    } else if (kind < 185) {
      resize(pick_of(live_));
    } else {
      deallocate_some();
    }
  }

  // --- The kernel and the threads ---------------------------------------------------------------

  // Refusals come in bouts, so that there is something to refuse.
  void change_refusals() {
    const Refused refusals[] = {Refused::kNothing, Refused::kHalf, Refused::kScribble};
    fake_.refused_decommit_does(choices_.one_of(refusals));
    const Move moves[] = {Move::kRefused, Move::kSourceLost, Move::kTargetLost};
    fake_.failed_move_is(choices_.one_of(moves));
    const std::size_t kind = choices_.below(10);
    if (kind < 3) {
      fake_.stop_failing();
    } else if (kind < 7) {
      const std::size_t times[] = {1, 2, 5, kAlways};
      const OsCall call = static_cast<OsCall>(choices_.below(kOsCalls));
      const std::size_t nth = 1 + choices_.below(1 + choices_.below(8));
      fake_.fail(call, nth, choices_.one_of(times));
    } else if (kind < 8) {
      fake_.fail_one_in(2 + choices_.below(30), choices_.below(256));
    } else if (kind < 9) {
      change_metadata();
    } else {
      fake_.refuse_above(kPageBytes << choices_.below(10));
    }
  }

  // The arena has no more blocks from some size on, which a small heap never sees by itself, or it
  // gets back what was taken.
  void change_metadata() {
    MetadataArena& arena = (*heap_).*arena_member();
    if (!hoard_.empty() && choices_.below(2) == 0) {
      for (const auto& [block, shift] : hoard_) arena.deallocate_block(block, shift);
      return hoard_.clear();
    }
    fake_.refuse_size(kMetadataChunkBytes);
    const std::size_t range = MetadataArena::kMaxShift - MetadataArena::kMinShift + 1;
    const auto least = MetadataArena::kMinShift + static_cast<unsigned>(choices_.below(range));
    for (unsigned shift = MetadataArena::kMaxShift; shift >= least; --shift) {
      while (void* const block = arena.allocate_block(shift)) hoard_.emplace_back(block, shift);
    }
  }

  void become(std::size_t thread) {
    caches_[thread_] = t_cache;
    thread_ = thread;
    t_cache = caches_[thread_];
  }

  void end_thread_or_begin() {
    if (t_cache == &g_cache_gone) {
      t_cache = &g_no_cache;
    } else {
      heap_->retire_cache();
    }
  }

  // Between the handlers the heap serves this thread, whatever process it will be in.
  void fork() {
    ForkHold::prepare(*heap_);
    allocate();
    if (choices_.below(2) == 0) return ForkHold::parent(*heap_);
    take_snapshot();
    const std::size_t cached = snapshot_->thread_cached;
    ForkHold::child(*heap_);
    for (std::size_t thread = 0; thread < kThreads; ++thread) {
      if (thread != thread_ && caches_[thread] != &g_cache_gone) caches_[thread] = &g_no_cache;
    }
    take_snapshot();
    lost_bytes_ += cached - snapshot_->thread_cached;
  }

  // --- Objects ----------------------------------------------------------------------------------

  // Not quite uniform, but cheap: the first object from a random one's address on.
  Map::iterator pick_of(Map& map) {
    const std::size_t span = static_cast<std::size_t>(map.rbegin()->first - map.begin()->first);
    return map.lower_bound(map.begin()->first + choices_.below(span + 1));
  }

  void allocate() {
    const std::size_t bytes = choose_size(choices_);
    const std::size_t how = choices_.below(10);
    const std::size_t shift = how < 8 ? 0 : choices_.below(choices_.below(8) == 0 ? 20 : 14);
    std::size_t count = 1 + (choices_.one_in(4) ? choices_.below(kMost) : 0);
    if (bytes > 8 * 1024) count = 1;
    while (count-- != 0 && allocate_one(bytes, how, std::size_t{1} << shift)) {
    }
  }

  bool allocate_one(std::size_t bytes, std::size_t how, std::size_t alignment) {
    const std::size_t refused = fake_.refused();
    char* ptr = nullptr;
    if (how < 6) {
      ptr = static_cast<char*>(heap_->allocate(bytes));
    } else if (how < 8) {
      ptr = static_cast<char*>(heap_->allocate_zeroed(bytes));
      if (ptr != nullptr) expect(all_zero(ptr, bytes), "a zeroed object is not zero");
    } else {
      ptr = static_cast<char*>(heap_->allocate_aligned(bytes, alignment));
    }
    if (ptr == nullptr) {
      expect(bytes > PTRDIFF_MAX || fake_.refused() != refused, "null, and the OS refused nothing");
      return false;
    }
    if (how < 8) alignment = bytes < 9 ? 8 : 16;
    expect(bytes <= PTRDIFF_MAX, "an object of more than PTRDIFF_MAX bytes");
    expect(reinterpret_cast<std::uintptr_t>(ptr) % alignment == 0, "an object is not aligned");
    add(ptr, bytes);
    return true;
  }

  void add(char* ptr, std::size_t bytes) {
    const std::size_t usable = heap_->usable_size(ptr);
    expect(usable >= bytes && usable > 0, "an object is smaller than was asked for");
    const auto next = live_.lower_bound(ptr);
    expect(next == live_.end() || ptr + usable <= next->first, "an object overlaps the next");
    if (next != live_.begin()) {
      const auto before = std::prev(next);
      expect(before->first + before->second.usable <= ptr, "an object overlaps the one before");
    }
    forget_graves(ptr, usable);
    phase_ += 7919;
    Pattern::fill(ptr, usable, phase_);
    live_[ptr] = {usable, phase_};
    live_bytes_ += counted_bytes(ptr, usable);
  }

  static bool is_intact(const char* ptr, const Object& object) {
    return Pattern::holds(ptr, object.usable, object.phase);
  }

  Map::iterator drop(Map::iterator object) {
    live_bytes_ -= counted_bytes(object->first, object->second.usable);
    return live_.erase(object);
  }

  void deallocate_some() {
    auto object = pick_of(live_);
    std::size_t count = 1 + (choices_.one_in(4) ? choices_.below(kMost) : 0);
    while (count-- != 0 && object != live_.end()) object = deallocate(object);
  }

  Map::iterator deallocate(Map::iterator object) {
    const auto [ptr, was] = *object;
    expect(heap_->usable_size(ptr) == was.usable, "an object's size has changed");
    expect(is_intact(ptr, was), "an object's bytes have changed");
    const auto next = drop(object);
    const std::size_t quiet = loud_calls();
    heap_->deallocate(ptr);
    if (loud_calls() == quiet) {
      expect(is_intact(ptr, was), "free has changed the object");
      bury(ptr, was);
    }
    return next;
  }

  void resize(Map::iterator object) {
    const auto [ptr, was] = *object;
    std::size_t bytes = choose_size(choices_);
    const std::size_t a_bit = was.usable > kMaxSmall ? 3 : 1;  // large blocks shall stay large
    if (choices_.below(4) < a_bit) bytes = was.usable / 2 + choices_.below(was.usable + 1);
    if (bytes > kMaxSmall && choices_.below(2) == 0) bytes = align_down(bytes, kMaxPageBytes);
    expect(is_intact(ptr, was), "an object's bytes have changed");
    const std::size_t refused = fake_.refused();
    const std::size_t quiet = loud_calls();
    char* const moved = static_cast<char*>(heap_->resize(ptr, bytes));
    if (moved == nullptr && bytes != 0) {
      expect(bytes > PTRDIFF_MAX || fake_.refused() != refused, "null, and the OS refused nothing");
      expect(heap_->usable_size(ptr) == was.usable, "a refused resize has changed the size");
      expect(is_intact(ptr, was), "a refused resize has changed the object");
      return;
    }
    drop(object);
    if (moved != ptr && loud_calls() == quiet) bury(ptr, was);
    if (moved == nullptr) return;
    const std::size_t kept = std::min(was.usable, heap_->usable_size(moved));
    expect(Pattern::holds(moved, kept, was.phase), "resize has lost bytes");
    add(moved, bytes);
  }

  // --- Bad pointers -----------------------------------------------------------------------------

  // A pointer into a live object or behind it, to a freed one, or to anywhere.
  void err() {
    const std::size_t kind = choices_.below(8);
    const char* const from = pick_of(graves_.empty() || kind > 1 ? live_ : graves_)->first;
    std::uintptr_t address = kind == 2 ? 0 : reinterpret_cast<std::uintptr_t>(from);
    if (kind != 0) address += choices_.below(kind < 5 ? std::size_t{1} << choices_.below(48) : 300);
    char* const ptr = reinterpret_cast<char*>(address);
    const Finding found = heap_->find(ptr);
    expect_true(ptr, found);
    // A free object in a thread cache counts as live.
    const bool bad = found.verdict != Verdict::kLive;
    if (!bad) expect(live_.count(ptr) != 0 || options_.check_free == 0, "a free object is live");
    if (ptr != nullptr && bad && options_.on_bad_free == Options::kIgnore) commit_crime(ptr, found);
  }

  // Of an address in a live object the heap knows all; in what it says of any other, it claims
  // nothing that is live.
  void expect_true(char* ptr, Finding found) {
    const auto after = live_.upper_bound(ptr);
    const auto begin = reinterpret_cast<char*>(found.start);
    if (after != live_.begin()) {
      const auto [start, object] = *std::prev(after);
      if (ptr < start + object.usable) {
        const Verdict verdict = ptr == start ? Verdict::kLive : Verdict::kInterior;
        expect(found.verdict == verdict && begin == start && found.bytes == object.usable,
               "the heap is wrong about an address in a live object");
        return;
      }
      expect(begin == nullptr || begin >= start + object.usable,
             "the heap says that a free object begins in a live one");
    }
    expect(begin == nullptr || after == live_.end() || begin + found.bytes <= after->first,
           "the heap says that a free object ends in a live one");
  }

  void commit_crime(char* ptr, Finding found) {
    Report report;
    t_report = &report;
    Caller caller = Caller::kFree;
    switch (choices_.below(3)) {
      case 0:
        caller = Caller::kRealloc;
        expect(heap_->resize(ptr, choose_size(choices_)) == nullptr, "a bad pointer is resized");
        break;
      case 1:
        caller = Caller::kUsableSize;
        expect(heap_->usable_size(ptr) == 0, "a bad pointer has a size");
        break;
      default:
        // A thread cache would take a small one, and find out later, or not at all.
        if (options_.check_free == 0 && t_cache != &g_cache_gone &&
            found.verdict != Verdict::kStale && found.bytes <= kMaxSmall) {
          heap_->usable_size(ptr);
          caller = Caller::kUsableSize;
        } else {
          heap_->deallocate(ptr);
        }
    }
    t_report = nullptr;
    expect(report.count == 1 && report.ptr == ptr && report.caller == caller &&
               report.finding.verdict == found.verdict && report.finding.start == found.start &&
               report.finding.bytes == found.bytes,
           "a bad pointer is not reported as what it is");
  }

  // --- What lies in free memory -----------------------------------------------------------------

  // Calls after which the bytes of free objects may be others: memory was given back or moved, or
  // free pages became metadata for want of any.
  std::size_t loud_calls() const {
    return fake_.calls(OsCall::kDecommit) + fake_.calls(OsCall::kOffer) +
           fake_.calls(OsCall::kMove) + fake_.calls(OsCall::kRenew) + fake_.refused();
  }
  void bury(char* ptr, const Object& object) {
    if (object.usable > limits_.bytes / 16) return;
    if (graves_.size() == 200) graves_.erase(graves_.begin());
    graves_[ptr] = object;
  }
  void forget_graves(char* ptr, std::size_t bytes) {
    auto grave = graves_.lower_bound(ptr);
    while (grave != graves_.begin() &&
           std::prev(grave)->first + std::prev(grave)->second.usable > ptr) {
      --grave;
    }
    while (grave != graves_.end() && grave->first < ptr + bytes) grave = graves_.erase(grave);
  }
  // Freed memory that nobody has got since is as the program left it.
  void check_graves() {
    if (loud_calls() != loud_at_last_check_) graves_.clear();
    loud_at_last_check_ = loud_calls();
    for (const auto& [ptr, was] : graves_) {
      expect(is_intact(ptr, was), "a free object's bytes have changed");
    }
  }

  // Makes the heap so large that it asks for huge pages, after a block was freed that had been
  // written to wherever it is looked at. Null if the OS refuses.
  void* allocate_peak() {
    auto* const block = static_cast<char*>(heap_->allocate(kMinHugeBytes));
    for (std::size_t i = 0; block != nullptr && i < 2 * kBlockLooks; ++i) {
      Pattern::fill(block + i * (kMinHugeBytes / 2 / kBlockLooks), 2 * kPageBytes, i);
    }
    heap_->deallocate(block);
    return heap_->allocate(kMinHugeBytes);
  }

  // --- Sums -------------------------------------------------------------------------------------

  void take_snapshot() { Snapshot::take(*heap_, *snapshot_); }

  void check() {
    heap_->check();
    heap_->check_caches();
    check_graves();
    take_snapshot();
    const Snapshot& s = *snapshot_;
    const std::size_t peak = peak_ == nullptr ? 0 : counted_bytes(peak_, heap_->usable_size(peak_));
    const std::size_t all_live = live_bytes_ + lost_bytes_ + peak;
    expect(s.live == all_live, "the live bytes are not those of the program");
    expect(s.mapped == s.live + s.thread_cached + s.central + s.page_heap_free + s.returned,
           "the report does not add up");
    expect(s.mapped + s.metadata + fake_.stuck_bytes() == fake_.mapped_bytes(),
           "address space has got lost");
    std::size_t large = 0;
    for (const auto& [ptr, object] : live_) large += object.usable > kMaxSmall ? 1 : 0;
    expect(s.large_count >= large, "a large object is not counted");
  }

  // Everything is freed, by whichever thread is at work, and nothing is left.
  void wind_up() {
    check();
    heap_->deallocate(std::exchange(peak_, nullptr));
    fake_.stop_failing();
    allocate_one(100, 0, 1);
    allocate_one(kMaxSmall + 1, 6, 1);
    expect(live_.size() >= 2, "null, and the OS refuses no more");
    for (auto object = live_.begin(); object != live_.end();) object = deallocate(object);
    check();
    for (std::size_t thread = 0; thread < kThreads; ++thread) {
      become(thread);
      if (thread % 2 == 0) heap_->trim();
      heap_->retire_cache();
    }
    heap_->trim();
    check();
    expect(snapshot_->threads == 0, "a thread's end has left its cache");
    expect(snapshot_->thread_cached == 0, "a thread's end has left objects in its cache");
    if (lost_bytes_ == 0) {
      expect(snapshot_->central == 0, "trim has left objects in central caches");
    }
    if (page_bytes_ <= kPageBytes) {
      expect(snapshot_->page_heap_free == 0, "trim has left pages");
    }
  }

  Choices& choices_;
  const ModelLimits limits_;
  const std::size_t page_bytes_;
  FakeOs fake_;
  const Options options_;
  TestHeap heap_;
  std::array<ThreadCache*, kThreads> caches_;  // t_cache of the threads that this one is not now
  std::size_t thread_ = 0;
  Map live_;
  std::size_t live_bytes_ = 0;
  void* peak_ = allocate_peak();
  std::size_t lost_bytes_ = 0;  // to forks, in the caches of threads that the child does not have
  std::size_t phase_ = 0;
  std::vector<std::pair<void*, unsigned>> hoard_;  // blocks of metadata, by shift
  Map graves_;                                     // freed, and not in use again as far as we know
  std::size_t loud_at_last_check_ = 0;
  std::unique_ptr<Snapshot> snapshot_ = std::make_unique<Snapshot>();
};

}  // namespace

void run_model(Choices& choices, const ModelLimits& limits) { Model(choices, limits).run(); }

void run_input(std::string_view bytes) {
  // Small, so that there are many inputs a second; but several blocks of kMoveBytes fit.
  static constexpr ModelLimits kLimits{
      .steps = 4096, .objects = 400, .bytes = 8 * kMoveBytes, .check_every = 16};
  std::thread([bytes] {
    Bytes choices(bytes);
    run_model(choices, kLimits);
  }).join();
}

}  // namespace test
}  // namespace minitc
