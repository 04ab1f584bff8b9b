// For a build with AddressSanitizer: a pool's small blocks are watched by it.
#include <stdio.h>
#include <string.h>

#include "../../preload/minitc.h"

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "nothing";
  minitc_pool_t* pool = minitc_pool_create(0);
  char* volatile block = (char*)minitc_pool_take(pool, 32);
  memset(block, 1, 32);
  char* volatile next = (char*)minitc_pool_take(pool, 32);
  memset(next, 1, 32);
  if (strcmp(what, "overrun") == 0) block[32] = 1;
  minitc_pool_reset(pool);
  if (strcmp(what, "use_after_reset") == 0) block[0] = 1;
  minitc_pool_destroy(pool);
  puts("survived");
  return 0;
}
