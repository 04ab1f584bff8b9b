// operator new when there is no memory: bad_alloc, new_handler, nothrow.
#include <new>
#include <string>
#include <vector>

#include "check.h"

namespace {

constexpr std::align_val_t kAlignment{4096};
// volatile: the compiler knows that these are too large.
volatile size_t huge_bytes = SIZE_MAX / 4;
volatile size_t largest_bytes = SIZE_MAX;
volatile size_t middle_bytes = 200u << 20;

template <typename Allocate>
void expect_bad_alloc(Allocate allocate) {
  bool thrown = false;
  try {
    (void)allocate();
  } catch (const std::bad_alloc& error) {
    thrown = std::string(error.what()) == "std::bad_alloc";
  }
  CHECK(thrown);
}

void every_throwing_form(size_t bytes) {
  expect_bad_alloc([=] { return operator new(bytes); });
  expect_bad_alloc([=] { return operator new[](bytes); });
  expect_bad_alloc([=] { return operator new(bytes, kAlignment); });
  expect_bad_alloc([=] { return operator new[](bytes, kAlignment); });
}

void every_nothrow_form(size_t bytes) {
  CHECK(operator new(bytes, std::nothrow) == nullptr);
  CHECK(operator new[](bytes, std::nothrow) == nullptr);
  CHECK(operator new(bytes, kAlignment, std::nothrow) == nullptr);
  CHECK(operator new[](bytes, kAlignment, std::nothrow) == nullptr);
}

void throws_bad_alloc() {
  every_throwing_form(huge_bytes);
  churn(5);
}

void throws_at_the_limit() {
  limit_address_space(160u << 20);
  every_throwing_form(middle_bytes);
  every_nothrow_form(middle_bytes);
  std::vector<char*> taken;
  taken.reserve(2000);
  expect_bad_alloc([&] {
    for (;;) taken.push_back(new char[1 << 20]);
    return nullptr;
  });
  CHECK(taken.size() > 50);
  for (char* object : taken) delete[] object;
  delete[] new char[50 << 20];
  churn(5);
}

void nothrow_returns_null() {
  every_nothrow_form(huge_bytes);
  churn(5);
}

// Rounded up to the alignment these overflow, which libstdc++ 12 does not see.
void largest_requests() {
  for (size_t less = 0; less < 10000; less += 1111) {
    every_throwing_form(largest_bytes - less);
    every_nothrow_form(largest_bytes - less);
  }
}

void zero_and_alignment() {
  std::vector<void*> objects;
  for (size_t alignment = 1; alignment <= 1 << 20; alignment *= 2) {
    for (size_t bytes : {0, 1, 8, 100, 10000, 300000}) {
      void* object = operator new (bytes, std::align_val_t{alignment});
      CHECK(reinterpret_cast<uintptr_t>(object) % alignment == 0);
      for (void* other : objects) CHECK(object != other);
      objects.push_back(object);
    }
    for (void* object : objects) operator delete (object, std::align_val_t{alignment});
    objects.clear();
  }
  void* one = operator new(0);
  void* two = operator new(0);
  CHECK(one != nullptr && two != nullptr && one != two);
  operator delete(one);
  operator delete(two);
}

int calls;
void* volatile reserve;

void handler_counts_to_five() {
  if (++calls == 5) std::set_new_handler(nullptr);
}

void handler_is_called_until_removed() {
  for (int form = 0; form < 4; form++) {
    calls = 0;
    std::set_new_handler(handler_counts_to_five);
    expect_bad_alloc([=] {
      return form == 0   ? operator new(huge_bytes)
             : form == 1 ? operator new[](huge_bytes)
             : form == 2 ? operator new(huge_bytes, kAlignment)
                         :
                         operator new[](huge_bytes, kAlignment);
    });
    CHECK(calls == 5);
  }
}

void nothrow_calls_the_handler() {
  calls = 0;
  std::set_new_handler(handler_counts_to_five);
  CHECK(operator new(huge_bytes, std::nothrow) == nullptr);
  CHECK(calls == 5);
}

void free_reserve() {
  calls++;
  CHECK(reserve != nullptr);
  free(reserve);
  reserve = nullptr;
}

// What the handler frees is enough for the second attempt.
void handler_frees_memory() {
  limit_address_space(160u << 20);
  reserve = malloc(90 << 20);
  CHECK(reserve != nullptr);
  std::set_new_handler(free_reserve);
  char* object = new char[80 << 20];
  object[0] = object[(80 << 20) - 1] = 1;
  CHECK(calls == 1);
  delete[] object;
}

struct Derived : std::bad_alloc {
  std::string text = "a text that is too long for the string itself";
  const char* what() const noexcept override { return text.c_str(); }
};

void throw_derived() {
  calls++;
  throw Derived();
}

void handler_throws_derived() {
  std::set_new_handler(throw_derived);
  bool caught = false;
  try {
    (void)operator new(huge_bytes);
  } catch (const Derived& error) {
    caught = std::string(error.what()).size() > 40;
  }
  CHECK(caught && calls == 1);
}

void nothrow_swallows_what_the_handler_throws() {
  std::set_new_handler(throw_derived);
  every_nothrow_form(huge_bytes);
  CHECK(calls == 4);
}

void handler_allocates() {
  static std::vector<std::string> log;
  std::set_new_handler([] {
    log.push_back(std::string(100, 'l'));
    if (log.size() == 20) std::set_new_handler(nullptr);
  });
  expect_bad_alloc([] { return operator new(huge_bytes); });
  CHECK(log.size() == 20);
}

// A class's destructors run when new throws through its constructor's frames.
struct Counted {
  static inline int alive = 0;
  Counted() { alive++; }
  ~Counted() { alive--; }
};

struct Failing {
  Counted first;
  std::vector<Counted> several = std::vector<Counted>(10);
  void* object = operator new(huge_bytes);
};

void unwinds() {
  for (int i = 0; i < 1000; i++) {
    expect_bad_alloc([] { return new Failing; });
    CHECK(Counted::alive == 0);
  }
  struct mallinfo2 info = mallinfo2();
  CHECK(info.uordblks + info.hblkhd < 1 << 20);
}

void* fail_in_thread(void* unused) {
  every_throwing_form(huge_bytes);
  every_nothrow_form(huge_bytes);
  return unused;
}

void in_threads() {
  for (int i = 0; i < 50; i++) {
    pthread_t threads[4];
    for (auto& thread : threads) {
      CHECK(pthread_create(&thread, nullptr, fail_in_thread, nullptr) == 0);
    }
    for (auto& thread : threads) pthread_join(thread, nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"throws_bad_alloc", throws_bad_alloc},
      {"throws_at_the_limit", throws_at_the_limit},
      {"nothrow_returns_null", nothrow_returns_null},
      {"largest_requests", largest_requests},
      {"zero_and_alignment", zero_and_alignment},
      {"handler_is_called_until_removed", handler_is_called_until_removed},
      {"nothrow_calls_the_handler", nothrow_calls_the_handler},
      {"handler_frees_memory", handler_frees_memory},
      {"handler_throws_derived", handler_throws_derived},
      {"nothrow_swallows_what_the_handler_throws", nothrow_swallows_what_the_handler_throws},
      {"handler_allocates", handler_allocates},
      {"unwinds", unwinds},
      {"in_threads", in_threads},
      {nullptr, nullptr},
  };
  return run_case(argc, argv, cases);
}
