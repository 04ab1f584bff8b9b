// A library whose function is chosen at load time by a resolver that allocates: the resolver runs
// while the loader still relocates, perhaps before it has relocated the allocator.
#include <stddef.h>
#include <stdlib.h>

enum { kObjects = 200 };
static unsigned char* kept[kObjects];
static unsigned char* kept_large;
static unsigned char* kept_aligned;

static int answer(void) { return 42; }

typedef int Answer(void);

static Answer* resolve(void) {
  for (size_t i = 0; i < kObjects; i++) {
    size_t size = i * 7 + 1;
    unsigned char* object = i % 2 == 0 ? malloc(size) : calloc(1, size);
    if (object == NULL) return NULL;
    object = realloc(object, size + 100);
    for (size_t k = 0; k < size + 100; k++) object[k] = (unsigned char)(i + k);
    kept[i] = object;
    free(malloc(size));
  }
  kept_large = malloc(3000000);
  kept_large[0] = kept_large[2999999] = 7;
  kept_aligned = aligned_alloc(4096, 4096);
  kept_aligned[0] = kept_aligned[4095] = 8;
  return answer;
}

// Hidden: the relocation is then this library's own, not one of whoever calls it.
__attribute__((ifunc("resolve"), visibility("hidden"))) int resolved_answer(void);

int call_resolved(void) { return resolved_answer(); }

// 1 when all that the resolver allocated is what it was; frees it, or resizes and frees it.
int check_kept(void) {
  for (size_t i = 0; i < kObjects; i++) {
    size_t size = i * 7 + 1;
    for (size_t k = 0; k < size + 100; k++) {
      if (kept[i][k] != (unsigned char)(i + k)) return 0;
    }
    if (i % 3 == 0) {
      kept[i] = realloc(kept[i], size + 5000);
      for (size_t k = 0; k < size + 100; k++) {
        if (kept[i][k] != (unsigned char)(i + k)) return 0;
      }
    }
    free(kept[i]);
  }
  if (kept_large[0] != 7 || kept_large[2999999] != 7) return 0;
  kept_large = realloc(kept_large, 6000000);
  if (kept_large[0] != 7 || kept_large[2999999] != 7) return 0;
  free(kept_large);
  if (((size_t)kept_aligned & 4095) != 0 || kept_aligned[0] != 8 || kept_aligned[4095] != 8)
    return 0;
  free(kept_aligned);
  return 1;
}
