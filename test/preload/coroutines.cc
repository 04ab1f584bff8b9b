// Coroutines that move between threads: each is stopped in one and goes on in another, in the
// middle of its work and, by a new_handler, in the middle of an allocation. The threads come and
// go.
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include <ucontext.h>

#include "check.h"

namespace {

constexpr int kCoroutines = 24;
constexpr int kWorkers = 4;
constexpr int kRounds = 100;
constexpr int kTurns = 100;  // of one thread, before another takes its place
constexpr size_t kStackBytes = 64 * 1024;

struct Held {
  unsigned char* object;
  size_t bytes;
  unsigned seed;
};

struct Coroutine {
  ucontext_t context;
  ucontext_t* resumed_by;
  std::thread::id thread;
  unsigned state;
  bool is_done;
  bool is_in_handler;
  Held held[40];
};

alignas(kStackBytes) unsigned char stacks[kCoroutines][kStackBytes];
Coroutine coroutines[kCoroutines];
std::mutex mutex;
std::deque<Coroutine*> waiting;
int left = kCoroutines;
long moves = 0;
long moves_in_handlers = 0;
// Nothing can satisfy it.
volatile size_t too_much = PTRDIFF_MAX - 4096;

// Nothing thread-local: the compiler may keep its address over a switch.
Coroutine& current() {
  const unsigned char here = 0;
  return coroutines[(reinterpret_cast<uintptr_t>(&here) - reinterpret_cast<uintptr_t>(stacks)) /
                    kStackBytes];
}

void switch_to_worker() {
  Coroutine& self = current();
  CHECK(swapcontext(&self.context, self.resumed_by) == 0);
}

unsigned random_below(Coroutine& self, unsigned bound) {
  self.state = self.state * 1664525 + 1013904223;
  return (self.state >> 8) % bound;
}

// Stops the coroutine in the middle of operator new; when it has been elsewhere it gives up.
void move_and_give_up() {
  switch_to_worker();
  throw std::bad_alloc();
}

void allocate_too_much(Coroutine& self) {
  self.is_in_handler = true;
  bool refused = false;
  try {
    ::operator delete(::operator new(too_much));
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  CHECK(refused);
  CHECK(::operator new(too_much, std::nothrow) == nullptr);
  self.is_in_handler = false;
}

void work() {
  Coroutine& self = current();
  for (int round = 0; round < kRounds; ++round) {
    for (Held& h : self.held) {
      if (random_below(self, 3) == 0) continue;
      if (h.object != nullptr) CHECK(is_filled(h.object, h.bytes, h.seed));
      if (random_below(self, 2) == 0) {
        free(h.object);
        h.object = nullptr;
      } else {
        h.bytes = random_below(self, 20) == 0 ? 300000 : 1 + random_below(self, 600);
        h.object = static_cast<unsigned char*>(realloc(h.object, h.bytes));
        h.seed = self.state;
        fill(h.object, h.bytes, h.seed);
      }
      if (random_below(self, 8) == 0) switch_to_worker();
    }
    if (round % 2 == 0) allocate_too_much(self);
  }
  for (Held& h : self.held) free(h.object);
  self.is_done = true;
  switch_to_worker();
}

Coroutine* next() {
  const std::lock_guard<std::mutex> guard(mutex);
  if (waiting.empty()) return nullptr;
  Coroutine* const first = waiting.front();
  waiting.pop_front();
  return first;
}

// Only when the coroutine has stopped may another thread take it.
void put_back(Coroutine* coroutine) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (coroutine->is_done) {
    --left;
  } else {
    waiting.push_back(coroutine);
  }
}

void take_turns() {
  ucontext_t own;
  for (int turn = 0; turn < kTurns; ++turn) {
    Coroutine* const coroutine = next();
    if (coroutine == nullptr) {
      std::this_thread::yield();
      continue;
    }
    if (coroutine->thread != std::this_thread::get_id()) {
      __atomic_fetch_add(coroutine->is_in_handler ? &moves_in_handlers : &moves, 1,
                         __ATOMIC_RELAXED);
    }
    coroutine->thread = std::this_thread::get_id();
    coroutine->resumed_by = &own;
    CHECK(swapcontext(&own, &coroutine->context) == 0);
    put_back(coroutine);
  }
}

}  // namespace

int main() {
  std::set_new_handler(move_and_give_up);
  for (int i = 0; i < kCoroutines; ++i) {
    Coroutine& c = coroutines[i];
    CHECK(getcontext(&c.context) == 0);
    c.context.uc_stack.ss_sp = stacks[i];
    c.context.uc_stack.ss_size = kStackBytes;
    c.state = static_cast<unsigned>(i);
    makecontext(&c.context, work, 0);
    waiting.push_back(&c);
  }
  while (left > 0) {
    std::vector<std::thread> workers;
    for (int i = 0; i < kWorkers; ++i) workers.emplace_back(take_turns);
    for (std::thread& worker : workers) worker.join();
  }
  CHECK(moves > 1000);
  CHECK(moves_in_handlers > kCoroutines);
  churn(100);
  return 0;
}
