// Shared by the crimes: each program makes one bad pointer and hands it to commit(), which names
// the pointer on stdout, so that the test can build the expected line, and calls the function
// argv[1]. Where bad pointers are ignored the program survives, and shows that its heap is whole.
#ifndef MINITC_TEST_MISUSE_CRIME_H_
#define MINITC_TEST_MISUSE_CRIME_H_

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../preload/glibc_malloc.h"

#if !defined(__GLIBC__)
#pragma weak malloc_trim  // the loader is to look for it, not the linker
#endif

// No stdio buffer: its allocation would otherwise come before the crime, and a crime must also be
// seen when it is the program's first call into the allocator.
static inline void say(const char* text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(2);
}

// Ends the program, since the library did not do what it says.
static inline void wrong(const char* what) {
  say("wrong: ");
  say(what);
  say("\n");
  _exit(4);
}

static inline void announce(const void* pointer) {
  char line[64];
  snprintf(line, sizeof line, "%p\n", pointer);
  say(line);
}

// Names the pointer and the object that it points into.
static inline void announce_interior(const void* pointer, void* object) {
  char line[96];
  snprintf(line, sizeof line, "%p %p %zu\n", pointer, object, malloc_usable_size(object));
  say(line);
}

// Not in the headers of glibc 2.36, so looked up by name.
static inline void* symbol(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (found == NULL) {
    say("missing symbol\n");
    _exit(2);
  }
  return found;
}

// Calls `function` on the pointer. Returns only if the library ignores bad pointers, and has then
// done nothing, or if this one is not bad. Inlined: each use is a call site of its own.
__attribute__((always_inline)) static inline void call(const char* function, void* pointer) {
  typedef void free_function(void*);
  typedef void free_sized_function(void*, size_t);
  typedef void free_aligned_sized_function(void*, size_t, size_t);
  typedef void* realloc_function(void*, size_t);
  // The compiler must not see where the pointer came from: it would reject the crime.
  void* volatile hidden = pointer;
  void* volatile result = NULL;
  volatile size_t bytes = 0;
  pointer = hidden;
  errno = 777;
  if (strcmp(function, "free") == 0) {
    free(pointer);
  } else if (strcmp(function, "realloc") == 0) {
    result = realloc(pointer, 100);
  } else if (strcmp(function, "realloc_to_zero") == 0) {
    result = realloc(pointer, 0);
  } else if (strcmp(function, "reallocarray") == 0) {
    result = reallocarray(pointer, 10, 10);
  } else if (strcmp(function, "malloc_usable_size") == 0) {
    bytes = malloc_usable_size(pointer);
  } else if (strcmp(function, "free_sized") == 0) {
    ((free_sized_function*)symbol(function))(pointer, 100);
  } else if (strcmp(function, "free_aligned_sized") == 0) {
    ((free_aligned_sized_function*)symbol(function))(pointer, 16, 100);
  } else if (strcmp(function, "__libc_realloc") == 0) {
    result = ((realloc_function*)symbol(function))(pointer, 100);
  } else {
    ((free_function*)symbol(function))(pointer);
  }
  if (pointer == NULL) return;
  if (result != NULL) wrong("realloc has made an object of a bad pointer");
  if (bytes != 0) wrong("a bad pointer has a size");
  const int is_realloc = strstr(function, "realloc") != NULL;
  const int expected = is_realloc && strcmp(function, "realloc_to_zero") != 0 ? EINVAL : 777;
  if (errno != expected) wrong("errno");
}

static inline unsigned char fill_of(int round, size_t slot) {
  return (unsigned char)(round * 7 + (int)slot * 31 + 1);
}

// 100,000 objects of all sizes, 500 at a time, each with bytes of its own.
static inline void churn(unsigned seed) {
  enum { kSlots = 500, kRounds = 200 };
  static const size_t sizes[] = {8, 16, 48, 100, 200, 400, 1000, 1500, 3000, 10000};
  unsigned char* objects[kSlots] = {NULL};
  size_t filled[kSlots] = {0};
  for (int round = 0; round <= kRounds; round++) {
    for (size_t i = 0; i < kSlots; i++) {
      for (size_t k = 0; k < filled[i]; k++) {
        if (objects[i][k] != fill_of(round - 1, i)) wrong("an object has changed");
      }
      free(objects[i]);
      seed = seed * 1664525 + 1013904223;
      const size_t size = seed % 997 == 0 ? 300000 : sizes[(seed >> 16) % 10];
      objects[i] = round == kRounds ? NULL : (unsigned char*)malloc(size);
      filled[i] = objects[i] == NULL ? 0 : size < 200 ? size : 200;
      if (objects[i] != NULL) memset(objects[i], fill_of(round, i), filled[i]);
    }
  }
}

static inline int survived(void) {
  malloc_trim(0);  // what lies in this thread's cache is checked before it is handed out
  churn(1);
  say("survived\n");
  return 0;
}

static inline int commit(char** argv, void* pointer) {
  announce(pointer);
  call(argv[1], pointer);
  return survived();
}

#endif  // MINITC_TEST_MISUSE_CRIME_H_
