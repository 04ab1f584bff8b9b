// A thread uses a pool, by the function argv[1], while another is in the middle of a reset.
#include <pthread.h>

#include "crime.h"

#include "../../preload/minitc.h"

#pragma weak minitc_pool_create
#pragma weak minitc_pool_destroy
#pragma weak minitc_pool_reset
#pragma weak minitc_pool_alloc
#pragma weak minitc_pool_cleanup_add
#pragma weak minitc_pool_free_large

static minitc_pool_t* pool;

static void* use(void* function) {
  const char* name = (const char*)function;
  if (strcmp(name, "alloc") == 0) minitc_pool_alloc(pool, 10);
  if (strcmp(name, "take") == 0) minitc_pool_take(pool, 10);
  if (strcmp(name, "free_large") == 0) minitc_pool_free_large(pool, NULL);
  if (strcmp(name, "reset") == 0) minitc_pool_reset(pool);
  if (strcmp(name, "destroy") == 0) minitc_pool_destroy(pool);
  return NULL;
}

static void use_in_a_thread(void* function) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, use, function) == 0) pthread_join(thread, NULL);
}

int main(int argc, char** argv) {
  pool = minitc_pool_create(0);
  if (argc < 2 || minitc_pool_cleanup_add(pool, use_in_a_thread, argv[1]) != 0) return 2;
  announce(pool);
  minitc_pool_reset(pool);
  return survived();
}
