// A cleanup function of a pool ends (argv[1]: reset or destroy) that same pool.
#include "crime.h"

#include "../../preload/minitc.h"

#pragma weak minitc_pool_create
#pragma weak minitc_pool_destroy
#pragma weak minitc_pool_reset
#pragma weak minitc_pool_cleanup_add

static minitc_pool_t* pool;

static void end(void* how) {
  if (strcmp((const char*)how, "reset") == 0) {
    minitc_pool_reset(pool);
  } else {
    minitc_pool_destroy(pool);
  }
}

int main(int argc, char** argv) {
  pool = minitc_pool_create(0);
  if (argc < 2 || minitc_pool_cleanup_add(pool, end, argv[1]) != 0) return 2;
  announce(pool);
  minitc_pool_reset(pool);
  return survived();
}
