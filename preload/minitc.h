/* What libminitc.so offers beside the standard's allocation functions. C11 and C++11.
 *
 * A program that may run without the library defines MINITC_WEAK before it includes this, and tests
 * what it uses for null:
 *   #define MINITC_WEAK
 *   #include <minitc.h>
 *   if (minitc_version) puts(minitc_version());
 *
 * All functions may be called by any thread at any time. Where a signal handler interrupted the
 * library itself they do nothing, and return what is said below for "not now". But those that empty
 * the thread's cache, minitc_release() and minitc_thread_idle(), and those of pools, may not be
 * called in a signal handler: malloc and free may be at work on the cache, and leave no sign of it.
 * None but those of pools changes errno.
 */
#ifndef MINITC_H
#define MINITC_H

#include <stddef.h>

#define MINITC_VERSION "0.1.0"

#if defined(MINITC_WEAK)
#define MINITC_LINKAGE __attribute__((visibility("default"), weak))
#else
#define MINITC_LINKAGE __attribute__((visibility("default")))
#endif
/* A call that goes past the procedure linkage table saves a jump (GCC). */
#if defined(__has_attribute)
#if __has_attribute(noplt)
#define MINITC_DIRECT __attribute__((noplt))
#endif
#endif
#if !defined(MINITC_DIRECT)
#define MINITC_DIRECT
#endif
#if defined(__cplusplus)
#define MINITC_FUNCTION extern "C" MINITC_DIRECT MINITC_LINKAGE
#else
#define MINITC_FUNCTION MINITC_DIRECT MINITC_LINKAGE
#endif

/* The version of the library that is loaded, as "MAJOR.MINOR.PATCH"; static storage, never null. */
MINITC_FUNCTION const char* minitc_version(void);

/* The value in effect of an option, by the name of its environment variable. Of one whose values
 * are words, the word's place among them, from 0 on, in the order of the manual; of one that is a
 * path, whether one was given. Numbers of bytes are in bytes. -1: null, or no option's name. */
MINITC_FUNCTION long long minitc_option(const char* name);

/* --- Figures ---------------------------------------------------------------------------------- */

/* Where the memory is, in bytes unless said otherwise. mapped is the sum of the five fields before
 * it, to the byte. While other threads allocate, figures are of slightly different moments. Fields
 * keep their meaning; later versions add more at the end. */
struct minitc_stats {
  size_t live;           /* with the program; each object counts as its size class or its pages */
  size_t thread_cached;  /* free, in thread caches; approximate */
  size_t central;        /* free, in spans of small objects, and what is left over in those; some
                            pages of it may have been given back to the OS */
  size_t page_heap_free; /* free pages with memory behind them */
  size_t returned;       /* free pages without: given back to the OS, or never used */
  size_t mapped;
  size_t metadata;    /* address space of the library's own data */
  size_t peak;        /* most that was live, thread-cached or central at a time */
  size_t large_bytes; /* the part of live that is objects of more than 128 KiB */
  size_t large_count; /* those, in objects */
  size_t threads;     /* threads that have a cache */
  size_t pools;       /* region pools */
  size_t pool_bytes;  /* of live: what pools held at their fullest of late */
};

/* Fills `out`, of `size` bytes (write sizeof *out): what the library does not know becomes 0, what
 * `out` has no room for is left out. Takes each lock for a short time. 0; -1: `out` is null, or not
 * now. */
MINITC_FUNCTION int minitc_stats(struct minitc_stats* out, size_t size);

/* More bytes than minitc_stats_json() ever needs. */
#define MINITC_STATS_JSON_BYTES 32768

/* Writes an object of JSON, the same as a line of MINITC_STATS_FILE, whose fields README.md
 * describes; `event` is "call". As snprintf: at most `size` bytes with the 0 at the end, and the
 * result is how many there would be without it. `buffer` may be null if `size` is 0. 0: not now. */
MINITC_FUNCTION size_t minitc_stats_json(char* buffer, size_t size);

/* Appends a line to the file that MINITC_STATS_FILE names. 1 if that was done; 0 if there is no
 * such file, it cannot be written, or another thread is writing a line. */
MINITC_FUNCTION int minitc_stats_write(void);

/* --- Giving memory back ----------------------------------------------------------------------- */

/* Returns all memory to the OS that is in whole free pages, once this thread's cache and what
 * waits between threads is emptied. The number of bytes returned; 0 also for "not now". As
 * malloc_trim(0). Other threads' caches stay theirs. */
MINITC_FUNCTION size_t minitc_release(void);

/* Empties this thread's cache: for a thread that will not allocate for a while. What was in it
 * serves other threads; the thread's next allocation begins a new one. */
MINITC_FUNCTION void minitc_thread_idle(void);

/* --- Looking inside --------------------------------------------------------------------------- */

enum minitc_span_state {
  MINITC_SPAN_SMALL = 0,   /* cut into objects of one size */
  MINITC_SPAN_LARGE = 1,   /* one object */
  MINITC_SPAN_FREE = 2,    /* free, with memory behind it, or on its way to the OS */
  MINITC_SPAN_RETURNED = 3 /* free, without memory behind it */
};

/* A run of pages, as it was at one moment. */
struct minitc_span {
  void* start;
  size_t bytes; /* of its pages */
  enum minitc_span_state state;
  size_t object_bytes; /* of each object; 0 if there are none. That of a large span ends where it
                          ends, and may begin behind its start. */
  size_t objects;      /* that the span is cut into: 1 if it is large, 0 if it is free */
  size_t free_objects; /* small: of those, in the span. Objects in thread caches, or on their way
                          between threads, do not count as free here. */
};

/* Calls visit(span, argument) for each span, in order of address, until one call returns anything
 * but 0; that is then the result, else 0. No lock is held during the calls: they may allocate, free
 * and call whatever they like. `span` is valid during the call. What other threads, or the calls
 * themselves, acquire and release meanwhile may be missing. Not now, or `visit` is null: -1. */
MINITC_FUNCTION int minitc_for_each_span(int (*visit)(const struct minitc_span* span,
                                                      void* argument),
                                         void* argument);

/* Walks through every span, bitmap and list of the heap and through this thread's cache. Null if
 * all is as it should be, or not now; else a line of static text that names the first condition
 * that does not hold: the heap's data has been overwritten, or the library has a fault. Takes some
 * milliseconds per GiB; other threads may go on, and wait for single locks meanwhile. */
MINITC_FUNCTION const char* minitc_heap_check(void);

/* --- Region pools --------------------------------------------------------------------------------
 *
 * The memory of one connection or request: many small blocks and a few large ones, all freed at
 * once. Blocks of up to MINITC_POOL_SMALL bytes are cut from chunks, one behind the other; larger
 * ones are the heap's. A pool may be used by one thread at a time, and not in signal handlers.
 *
 * What returns a pointer returns null and sets errno to ENOMEM if memory is refused, if a size is
 * too large, and if the pool is null: a program may make a pool, take its first block, and look at
 * that alone. Blocks are aligned to 16 bytes, and one of 0 bytes is a block of its own. */

/* What minitc_pool_take() needs of it; the rest is the library's. */
typedef struct minitc_pool {
  char* cursor;
  char* limit;
} minitc_pool_t;

#define MINITC_POOL_SMALL 4096

/* A pool. Its first chunk has `first_chunk_bytes` or more, of which the pool needs about 200; each
 * later chunk is twice as large as the last, up to 64 KiB. 0 stands for 1 KiB. */
MINITC_FUNCTION minitc_pool_t* minitc_pool_create(size_t first_chunk_bytes);

/* Frees the pool and all its memory. Nothing for null. */
MINITC_FUNCTION void minitc_pool_destroy(minitc_pool_t* pool);

/* Frees all blocks. The first chunk stays, with those that follow up to 64 KiB in all. Nothing for
 * null. Neither this nor minitc_pool_destroy() may be called by a cleanup function of the pool: it
 * ends the program. */
MINITC_FUNCTION void minitc_pool_reset(minitc_pool_t* pool);

/* A block of `bytes`. */
MINITC_FUNCTION void* minitc_pool_alloc(minitc_pool_t* pool, size_t bytes)
    __attribute__((malloc, alloc_size(2)));

/* The same, compiled into the program as far as it is short. What it may cut from is the library's
 * to say: in a debug build, and under AddressSanitizer, every block is the library's to give. */
static inline void* minitc_pool_take(minitc_pool_t* pool, size_t bytes) {
  /* A null pool reads as a full one, which costs no branch, and in a loop nothing. */
  static char nothing;
  static const minitc_pool_t full = {&nothing, &nothing};
  const minitc_pool_t* const from = pool != NULL ? pool : &full;
  char* const block = from->cursor;
  char* next;
  if (bytes - 1 >= MINITC_POOL_SMALL) return minitc_pool_alloc(pool, bytes);
  next = block + ((bytes - 1) | 15) + 1;
  if (next > from->limit) return minitc_pool_alloc(pool, bytes);
  /* What has room is not null, so the caller's own test for null is compiled away here. */
  if (block == NULL) __builtin_unreachable();
  pool->cursor = next;
  return block;
}

/* A block for `count` things of `size` bytes, all zero. */
MINITC_FUNCTION void* minitc_pool_calloc(minitc_pool_t* pool, size_t count, size_t size)
    __attribute__((malloc, alloc_size(2, 3)));

/* A block of `bytes` that is aligned to `alignment`. EINVAL if that is not a power of two. It is a
 * large one if `bytes` and `alignment` together are more than MINITC_POOL_SMALL + 16. */
MINITC_FUNCTION void* minitc_pool_memalign(minitc_pool_t* pool, size_t bytes, size_t alignment)
    __attribute__((malloc, alloc_size(2), alloc_align(3)));

/* A copy of a string. */
MINITC_FUNCTION char* minitc_pool_strdup(minitc_pool_t* pool, const char* string)
    __attribute__((malloc));

/* Frees a large block early, and returns 1. Whatever else `block` is, a small block, one freed
 * before, null or not the pool's, nothing is done, and 0 returned. */
MINITC_FUNCTION int minitc_pool_free_large(minitc_pool_t* pool, void* block);

/* At the next reset or destroy, before any memory is freed, function(argument) is called; the
 * function added last comes first. It may use the pool, and what it adds is called as well. It has
 * to return. Returns 0, or -1 with ENOMEM if memory is refused or the pool is null. */
MINITC_FUNCTION int minitc_pool_cleanup_add(minitc_pool_t* pool, void (*function)(void*),
                                            void* argument);

/* In bytes unless said otherwise. Later versions may add fields at the end. */
typedef struct minitc_pool_stats {
  size_t chunks; /* how many */
  size_t chunk_bytes;
  size_t used_bytes;  /* of chunk_bytes: cut off for blocks and for the pool's own data */
  size_t large_count; /* live large blocks */
  size_t large_bytes; /* as they were asked for */
} minitc_pool_stats_t;

/* Fills in the first `size` bytes of the struct: give its sizeof. All 0 for a null pool. */
MINITC_FUNCTION void minitc_pool_stats(minitc_pool_t* pool, minitc_pool_stats_t* stats,
                                       size_t size);

#endif
