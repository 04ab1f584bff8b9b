// 32 threads allocate and free while the main thread forks again and again. argv[1]: what the child
// does; argv[2]: how many forks. A child that hangs is found by its parent.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

constexpr int kThreads = 32;
std::atomic<bool> stop{false};

// Short bursts and shorter rests: locks are taken all the time, but the forking thread gets its
// turn.
void disturb(unsigned seed) {
  unsigned state = seed;
  void* kept[64] = {};
  while (!stop.load(std::memory_order_relaxed)) {
    for (int i = 0; i < 300; i++) {
      state = state * 1103515245 + 12345;
      unsigned slot = (state >> 16) % 64;
      free(kept[slot]);
      kept[slot] = malloc((state >> 8) % (i % 100 == 0 ? 300000 : 2000) + 1);
    }
    usleep(5000);
  }
  for (void* object : kept) free(object);
}

void child_malloc() { churn(2); }

void child_realloc() {
  char* object = nullptr;
  for (size_t size = 1; size < 2000000; size = size * 3 + 1) {
    object = static_cast<char*>(realloc(object, size));
    CHECK(object != nullptr);
    object[size - 1] = 1;
  }
  free(object);
  free(memalign(4096, 10000));
  free(calloc(1000, 300));
}

void child_new() {
  std::vector<std::string> strings;
  for (size_t i = 0; i < 200; i++) strings.push_back(std::string(i * 5, 'c'));
  for (size_t i = 0; i < 200; i++) CHECK(strings[i].size() == i * 5);
}

void* churn_once(void* unused) {
  churn(1);
  return unused;
}

void child_thread() {
  pthread_t threads[2];
  for (auto& thread : threads) CHECK(pthread_create(&thread, nullptr, churn_once, nullptr) == 0);
  churn(1);
  for (auto& thread : threads) CHECK(pthread_join(thread, nullptr) == 0);
}

// A child of the child: the child's locks and lists must be whole enough to be copied again.
void child_fork() {
  pid_t grandchild = fork_checked();
  if (grandchild == 0) {
    churn(1);
    _exit(0);
  }
  churn(1);
  CHECK(child_succeeded(grandchild));
}

const TestCase kChildren[] = {
    {"child_malloc", child_malloc}, {"child_realloc", child_realloc}, {"child_new", child_new},
    {"child_thread", child_thread}, {"child_fork", child_fork},       {nullptr, nullptr},
};

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 3);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; i++) threads.emplace_back(disturb, i + 1);
  for (int i = 0; i < atoi(argv[2]); i++) {
    pid_t child = fork_checked();
    if (child == 0) _exit(run_case(argc, argv, kChildren));
    void* volatile own = malloc(static_cast<size_t>(i) % 5000);
    CHECK(child_succeeded(child));
    free(own);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  churn(100);
  return 0;
}
