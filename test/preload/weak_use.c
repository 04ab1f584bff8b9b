// A program that makes use of libminitc where it is loaded, and runs as well where it is not. In
// C++ the same: weak_use_cxx.cc.
#define MINITC_WEAK
#include <stdio.h>
#include <stdlib.h>

#include "../../preload/minitc.h"

static int count_large(const struct minitc_span* span, void* count) {
  if (span->state == MINITC_SPAN_LARGE) ++*(int*)count;
  return 0;
}

int main(void) {
  void* volatile block = malloc(10 << 20);
  if (!minitc_version) {
    puts("without libminitc");
  } else {
    struct minitc_stats stats;
    int large = 0;
    if (minitc_stats(&stats, sizeof stats) != 0) return 1;
    if (minitc_for_each_span(count_large, &large) != 0) return 1;
    printf("libminitc %s: %zu MiB in %d blocks\n", minitc_version(), stats.large_bytes >> 20,
           large);
    const char* broken = minitc_heap_check();
    if (broken) puts(broken);
  }
  free(block);
  if (minitc_release) minitc_release();
  return 0;
}
