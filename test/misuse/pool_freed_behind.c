// A large block of a pool is freed by free(); the pool is ended by the function argv[1].
#include "crime.h"

#include "../../preload/minitc.h"

#pragma weak minitc_pool_create
#pragma weak minitc_pool_destroy
#pragma weak minitc_pool_reset
#pragma weak minitc_pool_alloc
#pragma weak minitc_pool_free_large

int main(int argc, char** argv) {
  minitc_pool_t* pool = minitc_pool_create(0);
  void* block = minitc_pool_alloc(pool, 1 << 20);
  if (argc < 2 || block == NULL) return 2;
  announce(block);
  free(block);
  if (strcmp(argv[1], "reset") == 0) minitc_pool_reset(pool);
  if (strcmp(argv[1], "destroy") == 0) minitc_pool_destroy(pool);
  if (strcmp(argv[1], "free_large") == 0) minitc_pool_free_large(pool, block);
  return survived();
}
