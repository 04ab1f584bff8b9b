// Very many threads, each of which has worked and then waits, as in a server with a thread for each
// connection. One after another they allocate and free; what the process holds after that, beyond
// what it held before, is what the malloc keeps for them.
//
//   idle_caches [--threads=4000] [--objects=300 in each]
//
// Stages: 1 before the threads work, 2 while they do, 3 when they all wait.
#include <semaphore>

#include <pthread.h>

#include "watched.h"

namespace {

constexpr std::uint64_t kLookMs = 500;  // so long each stage lasts
constexpr std::size_t kStack = 128 << 10;

struct Shared {
  explicit Shared(bench::Options& options) : watched(options) {}

  bench::Watched watched;
  std::size_t objects = 0;
  std::counting_semaphore<> done{0};
  bench::Random random{1};  // this and what follows: of the thread whose turn it is
  std::uint64_t freed = 0;
};

struct Thread {
  Shared* shared;
  pthread_t handle;
  std::binary_semaphore turn{0};
};

// Writes to the stack as deep as the work may go, so that this is no part of what is measured.
[[gnu::noinline]] void touch_stack() {
  volatile char bytes[12 << 10];
  for (std::size_t i = 0; i < sizeof bytes; i += 512) {
    bytes[i] = 1;
  }
}

void work(Shared& shared) {
  bench::List list;
  for (std::size_t i = 0; i < shared.objects; i++) {
    list.push(bench::make(16u << shared.random.below(9)));
  }
  while (bench::Object* object = list.pop()) {
    shared.freed += drop(object);
  }
}

void* live(void* argument) {
  auto& self = *static_cast<Thread*>(argument);
  Shared& shared = *self.shared;
  touch_stack();
  shared.done.release();
  self.turn.acquire();
  work(shared);
  shared.done.release();
  self.turn.acquire();
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  Shared shared(options);
  const std::uint64_t count = options.scaled("threads", 4000);
  shared.objects = options.whole("objects", 300);
  options.finish();

  std::vector<Thread> threads(count);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStack);
  for (Thread& thread : threads) {
    thread.shared = &shared;
    bench::check(pthread_create(&thread.handle, &attributes, live, &thread) == 0,
                 "a thread cannot be started");
    shared.done.acquire();
  }
  shared.watched.reach(1);
  bench::sleep_ms(kLookMs);
  shared.watched.reach(2);
  for (Thread& thread : threads) {
    thread.turn.release();
    shared.done.acquire();
  }
  shared.watched.reach(3);
  bench::sleep_ms(kLookMs);
  shared.watched.reach(bench::Watched::kEnd);
  shared.watched.write_report();
  for (Thread& thread : threads) {
    thread.turn.release();
    pthread_join(thread.handle, nullptr);
  }
  bench::report("checksum", shared.freed);
}
