// Shared by the crimes: each program makes one bad pointer and hands it to commit(), which names
// the pointer on stdout, so that the test can build the expected line, and calls the function
// argv[1].
#ifndef MINITC_TEST_MISUSE_CRIME_H_
#define MINITC_TEST_MISUSE_CRIME_H_

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// No stdio buffer: its allocation would otherwise come before the crime, and a crime must also be
// seen when it is the program's first call into the allocator.
static inline void say(const char* text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(2);
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

// Calls `function` on the pointer. Does not return when the library does its work.
static inline void call(const char* function, void* pointer) {
  typedef void free_function(void*);
  typedef void free_sized_function(void*, size_t);
  typedef void free_aligned_sized_function(void*, size_t, size_t);
  typedef void* realloc_function(void*, size_t);
  // The compiler must not see where the pointer came from: it would reject the crime.
  void* volatile hidden = pointer;
  void* volatile result = NULL;
  pointer = hidden;
  if (strcmp(function, "free") == 0) {
    free(pointer);
  } else if (strcmp(function, "realloc") == 0) {
    result = realloc(pointer, 100);
  } else if (strcmp(function, "realloc_to_zero") == 0) {
    result = realloc(pointer, 0);
  } else if (strcmp(function, "reallocarray") == 0) {
    result = reallocarray(pointer, 10, 10);
  } else if (strcmp(function, "malloc_usable_size") == 0) {
    volatile size_t bytes = malloc_usable_size(pointer);
    (void)bytes;
  } else if (strcmp(function, "free_sized") == 0) {
    ((free_sized_function*)symbol(function))(pointer, 100);
  } else if (strcmp(function, "free_aligned_sized") == 0) {
    ((free_aligned_sized_function*)symbol(function))(pointer, 16, 100);
  } else if (strcmp(function, "__libc_realloc") == 0) {
    result = ((realloc_function*)symbol(function))(pointer, 100);
  } else {
    ((free_function*)symbol(function))(pointer);
  }
  (void)result;
}

static inline int survived(void) {
  say("survived\n");
  return 0;
}

static inline int commit(char** argv, void* pointer) {
  announce(pointer);
  call(argv[1], pointer);
  return survived();
}

#endif  // MINITC_TEST_MISUSE_CRIME_H_
