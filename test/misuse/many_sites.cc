// Frees a static object at 300 call sites, twice.
#include <utility>

#include "crime.h"

namespace {

long in_data[8];

template <int kSite>
[[gnu::noinline]] void commit_at() {
  void* volatile pointer = in_data;
  free(pointer);
  asm volatile("" ::"i"(kSite));  // not a tail call, and not to be merged with another site
}

template <int... kSites>
void commit_at_all(std::integer_sequence<int, kSites...>) {
  (commit_at<kSites>(), ...);
}

}  // namespace

int main() {
  for (int round = 0; round < 2; round++) commit_at_all(std::make_integer_sequence<int, 300>());
  return survived();
}
