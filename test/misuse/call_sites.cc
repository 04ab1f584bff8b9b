// A thousand crimes at one call site, and if argv[3] is 2 a thousand at another.
#include <new>

#include "crime.h"

namespace {

void* pointer;

// The calls of one site: inlined nowhere and, since it loops, with a return address of its own.
template <int kSite>
[[gnu::noinline]] void commit_at(const char* function) {
  for (int i = 0; i < 1000; i++) {
    if (strcmp(function, "operator_delete") == 0) {
      operator delete (pointer, std::size_t{8});
    } else {
      call(function, pointer);
    }
    asm volatile("" ::"i"(kSite));  // not to be merged with another site
  }
}

void* bad_pointer(const char* kind) {
  static long in_data[8];
  static char* objects[5000];
  const size_t bytes = strstr(kind, "large") != nullptr ? 1 << 20 : 1000;
  if (strcmp(kind, "foreign") == 0) return in_data;
  for (char*& object : objects) {
    object = static_cast<char*>(malloc(bytes));
    if (bytes > 1000) break;
  }
  if (strcmp(kind, "interior") == 0 || strcmp(kind, "interior_large") == 0) return objects[0] + 16;
  char* const victim = objects[bytes > 1000 ? 0 : 2500];
  const bool all = strcmp(kind, "freed_span") == 0;
  for (char* const object : objects) {
    if (all || object == victim) free(object);
  }
  return victim;
}

}  // namespace

int main(int, char** argv) {
  pointer = bad_pointer(argv[2]);
  commit_at<1>(argv[1]);
  if (strcmp(argv[3], "2") == 0) commit_at<2>(argv[1]);
  return survived();
}
