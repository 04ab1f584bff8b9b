// LDFLAGS: -L$(dirname $LIB) -lminitc
// A program that is linked with the library needs no preload, and malloc is the library's too.
#include "check.h"

#include "../../preload/minitc.h"

int main(void) {
  minitc_pool_t* pool = minitc_pool_create(0);
  for (int i = 0; i < 1000; i++) {
    size_t size = (size_t)i * 10;
    void* block = i % 2 == 0 ? minitc_pool_alloc(pool, size) : minitc_pool_take(pool, size);
    CHECK(block != NULL);
    fill(block, size, 1);
    if (i % 100 == 0) minitc_pool_reset(pool);
  }
  minitc_pool_destroy(pool);
  void* object = malloc(100);
  CHECK(malloc_usable_size(object) == 112);
  free(object);
  puts(minitc_version());
  return 0;
}
