// CFLAGS: -std=c++11
// As weak_use.c, in C++.
#define MINITC_WEAK
#include <cstdio>
#include <cstdlib>

#include "../../preload/minitc.h"

int main() {
  void* volatile block = std::malloc(10 << 20);
  if (minitc_version == nullptr) {
    std::puts("without libminitc");
  } else {
    struct minitc_stats stats;
    int large = 0;
    const auto count = [](const minitc_span* span, void* argument) {
      if (span->state == MINITC_SPAN_LARGE) ++*static_cast<int*>(argument);
      return 0;
    };
    if (minitc_stats(&stats, sizeof stats) != 0) return 1;
    if (minitc_for_each_span(count, &large) != 0) return 1;
    std::printf("libminitc %s: %zu MiB in %d blocks\n", minitc_version(), stats.large_bytes >> 20,
                large);
    if (const char* broken = minitc_heap_check()) std::puts(broken);
  }
  std::free(block);
  if (minitc_release != nullptr) minitc_release();
  return 0;
}
