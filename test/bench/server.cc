// A server whose threads hand their work over, in the shape that Larson and Krishnan described:
// each thread owns a table of objects, replaces some of them at random, ends, and leaves the table
// to a successor, which frees what its predecessors allocated.
//
//   server [--threads=2] [--slots=16000 over all threads] [--generations=20] [--least=16]
//          [--most=1000] [--count=replacements over all threads and generations]
#include <pthread.h>
#include <semaphore.h>

#include "bench.h"

namespace {

struct Object {
  std::uint32_t slot;
  std::uint32_t size;
};

struct Setting {
  std::uint32_t slots, least, most;
  std::uint64_t count;  // replacements in one thread's life
};

struct Chain {
  const Setting* setting = nullptr;
  std::vector<Object*> table;
  bench::Random random{0};
  std::uint64_t generations = 0;  // still to come
  std::uint64_t freed_bytes = 0;
  pthread_t last{};  // the thread that started the one at work, or main
  bool is_first = true;
  sem_t is_over{};
};

Object* make(Chain& chain, std::uint32_t slot) {
  const std::uint32_t size = chain.random.between(chain.setting->least, chain.setting->most);
  auto* object = static_cast<Object*>(std::malloc(size));
  *object = {slot, size};
  return object;
}

void drop(Chain& chain, std::uint32_t slot) {
  Object* object = chain.table[slot];
  bench::check(object->slot == slot, "an object does not hold what was written");
  chain.freed_bytes += object->size;
  std::free(object);
}

void* live(void* argument) {
  Chain& chain = *static_cast<Chain*>(argument);
  if (!chain.is_first) {
    pthread_join(chain.last, nullptr);
  }
  chain.is_first = false;
  for (std::uint64_t i = 0; i < chain.setting->count; i++) {
    const std::uint32_t slot = chain.random.below(chain.setting->slots);
    drop(chain, slot);
    chain.table[slot] = make(chain, slot);
  }
  chain.last = pthread_self();
  if (--chain.generations == 0) {
    sem_post(&chain.is_over);
    return nullptr;
  }
  pthread_t successor;
  bench::check(pthread_create(&successor, nullptr, live, &chain) == 0, "no thread can be started");
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const std::uint64_t generations = options.whole("generations", 20);
  Setting setting{};
  setting.slots = static_cast<std::uint32_t>(options.whole("slots", 16'000) / threads);
  setting.least = static_cast<std::uint32_t>(options.whole("least", 16));
  setting.most = static_cast<std::uint32_t>(options.whole("most", 1000));
  bench::check(generations > 0 && setting.slots > 0, "--generations and --slots are too few");
  bench::check(setting.least >= sizeof(Object) && setting.least <= setting.most,
               "the sizes must be 8 <= least <= most");
  setting.count = options.scaled("count", 8'000'000) / threads / generations;
  options.finish();

  std::vector<Chain> chains(threads);
  for (std::size_t i = 0; i < threads; i++) {
    Chain& chain = chains[i];
    chain.setting = &setting;
    chain.random = bench::Random(i);
    chain.generations = generations;
    sem_init(&chain.is_over, 0, 0);
    for (std::uint32_t slot = 0; slot < setting.slots; slot++) {
      chain.table.push_back(make(chain, slot));
    }
  }
  for (Chain& chain : chains) {
    pthread_t first;
    bench::check(pthread_create(&first, nullptr, live, &chain) == 0, "no thread can be started");
  }
  std::uint64_t total = 0;
  for (Chain& chain : chains) {
    while (sem_wait(&chain.is_over) != 0) {
    }
    pthread_join(chain.last, nullptr);
    for (std::uint32_t slot = 0; slot < setting.slots; slot++) {
      drop(chain, slot);
    }
    total += chain.freed_bytes;
  }
  bench::report("checksum", total);
}
