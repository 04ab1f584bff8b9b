// A program that replaces operator new[](size_t) and operator delete[](void*) alone, with a header:
// the nothrow array forms stand on these two, not on the single ones.
#include <new>

#include "check.h"

namespace {

constexpr size_t kHeaderBytes = 64;
long live;

}  // namespace

void* operator new[](size_t bytes) {
  live++;
  return static_cast<char*>(malloc(bytes + kHeaderBytes)) + kHeaderBytes;
}
void* operator new[](size_t bytes, std::align_val_t alignment) {
  live++;
  size_t header = static_cast<size_t>(alignment);  // keeps it aligned
  return static_cast<char*>(aligned_alloc(static_cast<size_t>(alignment), bytes + header)) + header;
}
void operator delete[](void* object) noexcept {
  live--;
  free(static_cast<char*>(object) - kHeaderBytes);
}
void operator delete[](void* object, std::align_val_t alignment) noexcept {
  live--;
  free(static_cast<char*>(object) - static_cast<size_t>(alignment));
}
void operator delete[](void* object, size_t) noexcept { operator delete[](object); }
void operator delete[](void* object, size_t, std::align_val_t alignment) noexcept {
  operator delete[](object, alignment);
}

namespace {

void nothrow() {
  for (int i = 0; i < 100; i++) {
    int* volatile numbers = new (std::nothrow) int[10];
    delete[] numbers;
  }
  CHECK(live == 0);
}

struct alignas(256) Wide {
  char bytes[256];
};

void aligned_nothrow() {
  for (int i = 0; i < 100; i++) {
    Wide* volatile wide = new (std::nothrow) Wide[3];
    CHECK(reinterpret_cast<uintptr_t>(wide) % 256 == 0);
    delete[] wide;
  }
  CHECK(live == 0);
}

}  // namespace

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"nothrow", nothrow},
      {"aligned_nothrow", aligned_nothrow},
      {nullptr, nullptr},
  };
  return run_case(argc, argv, cases);
}
