/* glibc's <malloc.h>, also where libc is another one, whose header has less. C11 and C++11. */
#ifndef MINITC_GLIBC_MALLOC_H
#define MINITC_GLIBC_MALLOC_H

#include <malloc.h>
#include <stddef.h>
#include <stdio.h>

#if !defined(__GLIBC__)

struct mallinfo {
  int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct mallinfo2 {
  size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
#define M_TRIM_THRESHOLD (-1)
#define M_MMAP_MAX (-4)
#define M_ARENA_MAX (-8)

#ifdef __cplusplus
extern "C" {
#endif
struct mallinfo mallinfo(void);
struct mallinfo2 mallinfo2(void);
int malloc_info(int options, FILE* stream);
void malloc_stats(void);
int malloc_trim(size_t keep_bytes);
int mallopt(int parameter, int value);
void* pvalloc(size_t bytes);
#ifdef __cplusplus
}
#endif

#endif

#endif
