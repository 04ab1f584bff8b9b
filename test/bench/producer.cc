// Asymmetric threads: the producers allocate and never free, the consumers free and never allocate.
// Each producer hands batches of pointers to a consumer of its own, through a short queue.
//
//   producer [--threads=2, half of each kind] [--least=64] [--most=64]
//            [--count=objects over all producers]
#include <semaphore.h>

#include "bench.h"

namespace {

constexpr std::size_t kBatch = 256;
constexpr std::size_t kDepth = 16;  // batches in a queue

struct Object {
  std::uint64_t number;
  std::uint64_t size;
};

// One producer's queue. The semaphores order all access to the batches.
struct Queue {
  sem_t room, filled;
  Object* batches[kDepth][kBatch];
};

void wait(sem_t& semaphore) {
  while (sem_wait(&semaphore) != 0) {
  }
}

std::uint64_t produce(Queue& queue, std::uint64_t batches, bench::Random random,
                      std::uint32_t least, std::uint32_t most) {
  std::uint64_t bytes = 0;
  for (std::uint64_t i = 0; i < batches; i++) {
    wait(queue.room);
    for (std::size_t j = 0; j < kBatch; j++) {
      const std::uint32_t size = random.between(least, most);
      auto* object = static_cast<Object*>(std::malloc(size));
      *object = {i * kBatch + j, size};
      queue.batches[i % kDepth][j] = object;
      bytes += size;
    }
    sem_post(&queue.filled);
  }
  return bytes;
}

std::uint64_t consume(Queue& queue, std::uint64_t batches) {
  std::uint64_t bytes = 0;
  for (std::uint64_t i = 0; i < batches; i++) {
    wait(queue.filled);
    for (std::size_t j = 0; j < kBatch; j++) {
      Object* object = queue.batches[i % kDepth][j];
      bench::check(object->number == i * kBatch + j, "an object does not hold what was written");
      bytes += object->size;
      std::free(object);
    }
    sem_post(&queue.room);
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(2);
  const auto least = static_cast<std::uint32_t>(options.whole("least", 64));
  const auto most = static_cast<std::uint32_t>(options.whole("most", 64));
  bench::check(threads % 2 == 0, "--threads must be even");
  bench::check(least >= sizeof(Object) && least <= most, "the sizes must be 16 <= least <= most");
  const std::size_t pairs = threads / 2;
  const std::uint64_t batches = options.scaled("count", 16'000'000) / pairs / kBatch + 1;
  options.finish();

  std::vector<Queue> queues(pairs);
  for (Queue& queue : queues) {
    sem_init(&queue.room, 0, kDepth);
    sem_init(&queue.filled, 0, 0);
  }
  std::vector<std::uint64_t> bytes(threads);
  bench::run_threads(threads, [&](std::size_t i) {
    bytes[i] = i % 2 == 0 ? produce(queues[i / 2], batches, bench::Random(i), least, most)
                          : consume(queues[i / 2], batches);
  });
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < threads; i += 2) {
    bench::check(bytes[i] == bytes[i + 1], "not all that was produced was consumed");
    total += bytes[i];
  }
  bench::report("checksum", total);
}
