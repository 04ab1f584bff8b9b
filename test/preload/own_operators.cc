// CFLAGS: -Wno-sized-deallocation
// A program that replaces operator new(size_t) and operator delete(void*) alone, as many do, with
// an allocator of its own that keeps a header. In libstdc++ every other form calls these two, so
// pairs of different forms fit together; they must under the library too.
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "check.h"

namespace {

constexpr size_t kHeaderBytes = 32;
constexpr uint64_t kMagic = 0x6f776e206f626a65;
long live;

}  // namespace

void* operator new(size_t bytes) {
  char* block = static_cast<char*>(malloc(bytes + kHeaderBytes));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<uint64_t*>(block) = kMagic;
  live++;
  return block + kHeaderBytes;
}

void operator delete(void* object) noexcept {
  if (object == nullptr) return;
  char* block = static_cast<char*>(object) - kHeaderBytes;
  CHECK(*reinterpret_cast<uint64_t*>(block) == kMagic);
  live--;
  free(block);
}

namespace {

struct Small {
  int numbers[10];
};

// `delete` of a complete type calls the sized form, which the program does not define.
void sized_delete() {
  for (int i = 0; i < 1000; i++) {
    Small* volatile object = new Small;
    delete object;
  }
  CHECK(live == 0);
}

void sized_delete_by_containers() {
  for (int i = 0; i < 100; i++) {
    std::vector<std::string> strings;
    for (size_t k = 0; k < 100; k++) strings.push_back(std::string(k * 3, 'o'));
    auto shared = std::make_shared<Small>();
    auto unique = std::make_unique<Small>();
  }
  CHECK(live == 0);
}

void array_forms() {
  for (int i = 0; i < 1000; i++) {
    Small* volatile objects = new Small[5];
    std::string* volatile strings = new std::string[5];
    delete[] objects;
    delete[] strings;
  }
  CHECK(live == 0);
}

// Spelled out, since for most types the compiler calls the sized form.
void nothrow_new_and_plain_delete() {
  for (int i = 0; i < 1000; i++) {
    void* object = operator new(sizeof(Small), std::nothrow);
    CHECK(object != nullptr);
    operator delete(object);
    object = operator new[](sizeof(Small), std::nothrow);
    operator delete[](object, std::nothrow);
  }
  CHECK(live == 0);
}

}  // namespace

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"sized_delete", sized_delete},
      {"sized_delete_by_containers", sized_delete_by_containers},
      {"array_forms", array_forms},
      {"nothrow_new_and_plain_delete", nothrow_new_and_plain_delete},
      {nullptr, nullptr},
  };
  return run_case(argc, argv, cases);
}
