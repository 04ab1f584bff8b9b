/* What libminitc.so offers beside the standard's allocation functions. C11 and C++11.
 *
 * A program that may run without the library defines MINITC_WEAK before it includes this, and tests
 * what it uses for null:
 *   #define MINITC_WEAK
 *   #include <minitc.h>
 *   if (minitc_version) puts(minitc_version());
 *
 * All functions may be called by any thread at any time. In a signal handler that interrupted the
 * library itself they do nothing, and return what is said below for "not now". None changes errno.
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
#if defined(__cplusplus)
#define MINITC_FUNCTION extern "C" MINITC_LINKAGE
#else
#define MINITC_FUNCTION MINITC_LINKAGE
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
  size_t central;        /* free, in spans of small objects, and what is left over in those */
  size_t page_heap_free; /* free pages with memory behind them */
  size_t returned;       /* free pages without: given back to the OS, or never used */
  size_t mapped;
  size_t metadata;    /* address space of the library's own data */
  size_t peak;        /* most that was live, thread-cached or central at a time */
  size_t large_bytes; /* the part of live that is objects of more than 256 KiB */
  size_t large_count; /* those, in objects */
  size_t threads;     /* threads that have a cache */
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
  size_t object_bytes; /* of each object; 0 if there are none */
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

#endif
