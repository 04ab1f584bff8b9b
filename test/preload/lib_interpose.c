// A second preload, which replaces what allocators like to call and finds the originals with dlsym
// on first use: dlsym may allocate, so an allocator that calls any of these runs in circles.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int calls;

// A failed lookup makes dlsym allocate its error text, each time.
static void* original(const char* name) {
  calls++;
  dlsym(RTLD_NEXT, "surely_not_a_symbol_of_any_library");
  void* volatile scratch = malloc(50);
  free(scratch);
  return dlsym(RTLD_NEXT, name);
}

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  static void* (*real)(void*, size_t, int, int, int, off_t);
  if (real == NULL) real = original("mmap");
  return real(address, bytes, protection, flags, fd, offset);
}

int munmap(void* address, size_t bytes) {
  static int (*real)(void*, size_t);
  if (real == NULL) real = original("munmap");
  return real(address, bytes);
}

int madvise(void* address, size_t bytes, int advice) {
  static int (*real)(void*, size_t, int);
  if (real == NULL) real = original("madvise");
  return real(address, bytes, advice);
}

void* mremap(void* address, size_t from, size_t to, int flags, ...) {
  static void* (*real)(void*, size_t, size_t, int, ...);
  if (real == NULL) real = original("mremap");
  va_list list;
  va_start(list, flags);
  void* fixed = va_arg(list, void*);
  va_end(list);
  return real(address, from, to, flags, fixed);
}

int open(const char* path, int flags, ...) {
  static int (*real)(const char*, int, ...);
  if (real == NULL) real = original("open");
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  return real(path, flags, mode);
}

ssize_t read(int fd, void* buffer, size_t bytes) {
  static ssize_t (*real)(int, void*, size_t);
  if (real == NULL) real = original("read");
  return real(fd, buffer, bytes);
}

ssize_t write(int fd, const void* buffer, size_t bytes) {
  static ssize_t (*real)(int, const void*, size_t);
  if (real == NULL) real = original("write");
  return real(fd, buffer, bytes);
}

char* getenv(const char* name) {
  static char* (*real)(const char*);
  if (real == NULL) real = original("getenv");
  return real(name);
}

int sigprocmask(int how, const sigset_t* set, sigset_t* old) {
  static int (*real)(int, const sigset_t*, sigset_t*);
  if (real == NULL) real = original("sigprocmask");
  return real(how, set, old);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static int (*real)(pthread_mutex_t*);
  if (real == NULL) real = original("pthread_mutex_lock");
  return real(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  static int (*real)(pthread_mutex_t*);
  if (real == NULL) real = original("pthread_mutex_unlock");
  return real(mutex);
}

int pthread_key_create(pthread_key_t* key, void (*destructor)(void*)) {
  static int (*real)(pthread_key_t*, void (*)(void*));
  if (real == NULL) real = original("pthread_key_create");
  return real(key, destructor);
}

int interposed_calls(void) { return calls; }
