// C++ objects that live as long as a thread: their destructors allocate and free.
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

struct Holder {
  std::map<int, std::string> strings;
  std::vector<char*> objects;
  void use(int seed) {
    for (int i = 0; i < 50; i++) {
      strings[i] = std::string(static_cast<size_t>(i) * 10, static_cast<char>('a' + seed % 26));
      objects.push_back(static_cast<char*>(malloc(static_cast<size_t>(i) * 40 + 1)));
    }
  }
  ~Holder() {
    for (auto& [size, text] : strings) CHECK(text.size() == static_cast<size_t>(size) * 10);
    for (char* object : objects) free(object);
    std::list<std::string> more;
    for (int i = 0; i < 300; i++) more.push_back(std::string(static_cast<size_t>(i), 'y'));
    churn(2);
  }
};

thread_local Holder first;
thread_local std::unique_ptr<Holder> second;

void use_both(int seed) {
  first.use(seed);
  second = std::make_unique<Holder>();
  second->use(seed);
}

template <typename Body>
void flat_over_threads(int count, Body body) {
  long before = 0;
  for (int i = 0; i < count; i++) {
    if (i == count / 3) before = resident_kib();
    std::thread(body, i).join();
  }
  CHECK(resident_kib() - before <= 1024);
}

void destructors_in_threads() { flat_over_threads(600, use_both); }

void destructor_in_main() { use_both(1); }

// The destructor is the thread's first use of the allocator's slow path, perhaps its only one.
struct OnlyAtTheEnd {
  bool used = false;
  ~OnlyAtTheEnd() {
    if (used) churn(3);
  }
};

thread_local OnlyAtTheEnd only_at_the_end;

void allocation_only_in_destructor() {
  flat_over_threads(600, [](int) { only_at_the_end.used = true; });
}

void many_at_once() {
  for (int round = 0; round < 20; round++) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 16; i++) threads.emplace_back(use_both, i);
    for (auto& thread : threads) thread.join();
  }
}

// An object passed from thread to thread, each of which frees its predecessor's as it dies.
void handed_over() {
  static std::string* text = new std::string(1000, 'z');
  flat_over_threads(600, [](int i) {
    static thread_local std::unique_ptr<std::string> owned;
    CHECK(text->size() == 1000 + static_cast<size_t>(i) % 100);
    owned.reset(text);
    text = new std::string(1000 + (static_cast<size_t>(i) + 1) % 100, 'z');
  });
  delete text;
}

}  // namespace

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"destructors_in_threads", destructors_in_threads},
      {"destructor_in_main", destructor_in_main},
      {"allocation_only_in_destructor", allocation_only_in_destructor},
      {"many_at_once", many_at_once},
      {"handed_over", handed_over},
      {nullptr, nullptr},
  };
  return run_case(argc, argv, cases);
}
