// A server's days and nights, hours pressed into minutes. Threads allocate objects of mixed sizes.
// One in ten lives long, up to three nights' length; the rest lives for a moment. A quarter is
// freed by another thread than it was allocated by. The load rises and falls; in each night, when
// it is low, four threads dump: they allocate much beside what goes on, hold it and free it.
//
//   nightly [--threads=32] [--nights=6] [--seconds=36] [--objects=per tick] [--dump=MiB]
//
// The work is divided into ticks. --seconds says how long it is made to last, and changes nothing
// of what is called.
// It lasts longer on a busy machine.
//
// Stages: the nights from 1 on, then a moment in which what is left can be looked at.
#include <numbers>

#include <barrier>
#include <cmath>

#include "watched.h"

namespace {

constexpr std::size_t kNight = 200;  // ticks
constexpr std::uint32_t kShortLife = 20;
constexpr std::uint32_t kLeastLong = kNight / 2, kMostLong = 3 * kNight;
// The dump, in ticks of a night.
constexpr std::size_t kDumpBegins = 140, kDumpHeld = 150, kDumpFreed = 160, kDumpEnds = 165;
constexpr std::size_t kDumpers = 4;
constexpr std::uint64_t kLookMs = 300;  // so long the end can be looked at

// What is due to be freed by one thread in one tick. Any thread may push; the owner takes all.
class Due {
 public:
  void push(bench::Object* object) {
    object->next = first_.load(std::memory_order_relaxed);
    while (!first_.compare_exchange_weak(object->next, object, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
  }
  std::uint64_t free_all() {
    bench::Object* object = first_.exchange(nullptr, std::memory_order_acquire);
    std::uint64_t bytes = 0;
    while (object != nullptr) {
      bench::Object* next = object->next;
      bytes += drop(object);
      object = next;
    }
    return bytes;
  }

 private:
  std::atomic<bench::Object*> first_{nullptr};
};

struct Plan {
  std::size_t threads, ticks;
  std::uint64_t objects;  // per tick and thread, at the mean load
  std::uint64_t dump;     // bytes
};

// 0.4 to 1.6, lowest at either end of a night.
double load(std::size_t tick) {
  return 1 - 0.6 * std::cos(2 * std::numbers::pi * static_cast<double>(tick % kNight) / kNight);
}

class Worker {
 public:
  // due: one for each thread and each tick, and for those after the last in which objects may die.
  Worker(const Plan& plan, std::vector<std::vector<Due>>& due, std::size_t self)
      : plan_(plan), due_(due), self_(self), random_(self) {}

  // Gives by how much what is live has grown.
  std::int64_t tick(std::size_t now) {
    std::int64_t grown = 0;
    const auto count = static_cast<std::uint64_t>(static_cast<double>(plan_.objects) * load(now));
    for (std::uint64_t i = 0; i < count; i++) {
      const std::uint32_t size = bench::mixed_size(random_);
      const std::uint32_t life = random_.below(10) == 0 ? random_.between(kLeastLong, kMostLong)
                                                        : random_.between(1, kShortLife);
      const std::size_t owner =
          random_.below(4) == 0 ? random_.below(static_cast<std::uint32_t>(plan_.threads)) : self_;
      due_[owner][now + life].push(bench::make(size));
      grown += size;
    }
    const std::uint64_t freed = due_[self_][now].free_all();
    freed_ += freed;
    grown -= static_cast<std::int64_t>(freed);
    return self_ < kDumpers ? grown + dump(now % kNight) : grown;
  }

  // What is still due after the last tick.
  void finish() {
    for (Due& due : due_[self_]) {
      freed_ += due.free_all();
    }
  }
  std::uint64_t freed() const { return freed_; }

 private:
  std::int64_t dump(std::size_t tick) {
    if (tick >= kDumpBegins && tick < kDumpHeld) {
      const std::uint64_t part = plan_.dump / kDumpers / (kDumpHeld - kDumpBegins);
      std::uint64_t bytes = 0;
      while (bytes < part) {
        const std::uint32_t size = bench::mixed_size(random_);
        dumped_.push(bench::make(size));
        bytes += size;
      }
      dumped_bytes_ += bytes;
      return static_cast<std::int64_t>(bytes);
    }
    if (tick >= kDumpFreed && tick < kDumpEnds) {
      const std::uint64_t left = dumped_bytes_ / (kDumpEnds - tick) * (kDumpEnds - tick - 1);
      std::int64_t bytes = 0;
      while (dumped_bytes_ > left) {
        const std::uint32_t size = drop(dumped_.pop());
        dumped_bytes_ -= size;
        bytes += size;
      }
      freed_ += static_cast<std::uint64_t>(bytes);
      return -bytes;
    }
    return 0;
  }

  const Plan plan_;
  std::vector<std::vector<Due>>& due_;
  const std::size_t self_;
  bench::Random random_;
  bench::List dumped_;
  std::uint64_t dumped_bytes_ = 0;
  std::uint64_t freed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  bench::Watched watched(options);
  const std::size_t threads = options.threads(32);
  const Plan plan = {.threads = threads,
                     .ticks = options.whole("nights", 6) * kNight,
                     .objects = options.scaled("objects", 4000) / threads + 1,
                     .dump = options.scaled("dump", 192) << 20};
  const std::uint64_t seconds = options.whole("seconds", 36);
  options.finish();
  bench::check(threads >= kDumpers, "--threads must be 4 or more");
  bench::check(plan.ticks > 0, "--nights must not be 0");

  std::vector<std::vector<Due>> due(threads);
  for (auto& ticks : due) {
    ticks = std::vector<Due>(plan.ticks + kMostLong + 1);
  }
  std::vector<std::uint64_t> freed(threads);
  std::barrier together(static_cast<std::ptrdiff_t>(threads));
  std::chrono::nanoseconds late{0};
  const auto begin = std::chrono::steady_clock::now();
  const auto period = std::chrono::nanoseconds(seconds * 1'000'000'000 / plan.ticks);
  bench::run_threads(threads, [&](std::size_t self) {
    Worker worker(plan, due, self);
    for (std::size_t now = 0; now < plan.ticks; now++) {
      if (self == 0) {
        watched.reach(1 + now / kNight);
      }
      watched.add(worker.tick(now));
      together.arrive_and_wait();
      std::this_thread::sleep_until(begin + (now + 1) * period);
    }
    if (self == 0) {
      late = std::chrono::steady_clock::now() - begin - plan.ticks * period;
      watched.reach(1 + plan.ticks / kNight);
      bench::sleep_ms(kLookMs);
      watched.reach(bench::Watched::kEnd);
      watched.write_report();
    }
    together.arrive_and_wait();
    worker.finish();
    freed[self] = worker.freed();
  });
  std::uint64_t total = 0;
  for (const std::uint64_t bytes : freed) {
    total += bytes;
  }
  bench::report("checksum", total);
  bench::report("late_ms", static_cast<std::uint64_t>(late / std::chrono::milliseconds(1)));
}
