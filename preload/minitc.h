/* What libminitc.so offers beside the standard's allocation functions. C11 and C++11.
 *
 * A program that may run without the library declares what it uses as weak and tests it for null:
 *   #pragma weak minitc_version
 *   if (minitc_version) puts(minitc_version());
 */
#ifndef MINITC_H
#define MINITC_H

#include <stddef.h>

#define MINITC_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that is loaded, as "MAJOR.MINOR.PATCH"; static storage, never null. */
__attribute__((visibility("default"))) const char* minitc_version(void);

/* --- Region pools --------------------------------------------------------------------------------
 *
 * The memory of one connection or request: many small blocks and a few large ones, all freed at
 * once. Blocks of up to MINITC_POOL_SMALL bytes are cut from chunks, one behind the other; larger
 * ones are the heap's. A pool may be used by one thread at a time, and not in signal handlers.
 *
 * What returns a pointer returns null and sets errno to ENOMEM if memory is refused, if a size is
 * too large, and if the pool is null: a program may make a pool, take its first block, and look at
 * that alone. Blocks are aligned to 16 bytes, and one of 0 bytes is a block of its own. */
#pragma GCC visibility push(default)

/* What minitc_pool_take() needs of it; the rest is the library's. */
typedef struct minitc_pool {
  char* cursor;
  char* limit;
} minitc_pool_t;

#define MINITC_POOL_SMALL 4096

/* A pool. Its first chunk has `first_chunk_bytes` or more, of which the pool needs about 200; each
 * later chunk is twice as large as the last, up to 64 KiB. 0 stands for 1 KiB. */
minitc_pool_t* minitc_pool_create(size_t first_chunk_bytes);

/* Frees the pool and all its memory. Nothing for null. */
void minitc_pool_destroy(minitc_pool_t* pool);

/* Frees all blocks. The first chunk stays, with those that follow up to 64 KiB in all. Nothing for
 * null. Neither this nor minitc_pool_destroy() may be called by a cleanup function of the pool: it
 * ends the program. */
void minitc_pool_reset(minitc_pool_t* pool);

/* A block of `bytes`. */
void* minitc_pool_alloc(minitc_pool_t* pool, size_t bytes) __attribute__((malloc, alloc_size(2)));

/* The same, compiled into the program as far as it is short. What it may cut from is the library's
 * to say: in a debug build, and under AddressSanitizer, every block is the library's to give. */
static inline void* minitc_pool_take(minitc_pool_t* pool, size_t bytes) {
  const size_t last = (bytes - 1) | 15; /* 0 wraps, and is left to the library */
  char* const block = pool == NULL ? NULL : pool->cursor;
  if (pool == NULL || last >= (size_t)(pool->limit - block)) return minitc_pool_alloc(pool, bytes);
  pool->cursor = block + last + 1;
  return block;
}

/* A block for `count` things of `size` bytes, all zero. */
void* minitc_pool_calloc(minitc_pool_t* pool, size_t count, size_t size)
    __attribute__((malloc, alloc_size(2, 3)));

/* A block of `bytes` that is aligned to `alignment`. EINVAL if that is not a power of two. It is a
 * large one if `bytes` and `alignment` together are more than MINITC_POOL_SMALL + 16. */
void* minitc_pool_memalign(minitc_pool_t* pool, size_t bytes, size_t alignment)
    __attribute__((malloc, alloc_size(2), alloc_align(3)));

/* A copy of a string. */
char* minitc_pool_strdup(minitc_pool_t* pool, const char* string) __attribute__((malloc));

/* Frees a large block early, and returns 1. Whatever else `block` is, a small block, one freed
 * before, null or not the pool's, nothing is done, and 0 returned. */
int minitc_pool_free_large(minitc_pool_t* pool, void* block);

/* At the next reset or destroy, before any memory is freed, function(argument) is called; the
 * function added last comes first. It may use the pool, and what it adds is called as well. It has
 * to return. Returns 0, or -1 with ENOMEM if memory is refused or the pool is null. */
int minitc_pool_cleanup_add(minitc_pool_t* pool, void (*function)(void*), void* argument);

/* In bytes unless said otherwise. Later versions may add fields at the end. */
typedef struct minitc_pool_stats {
  size_t chunks; /* how many */
  size_t chunk_bytes;
  size_t used_bytes;  /* of chunk_bytes: cut off for blocks and for the pool's own data */
  size_t large_count; /* live large blocks */
  size_t large_bytes; /* as they were asked for */
} minitc_pool_stats_t;

/* Fills in the first `size` bytes of the struct: give its sizeof. All 0 for a null pool. */
void minitc_pool_stats(minitc_pool_t* pool, minitc_pool_stats_t* stats, size_t size);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
