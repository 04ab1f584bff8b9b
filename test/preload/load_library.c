// Opens the library (argv[1]) in a program that did not preload it. The program's malloc stays
// libc's; what it takes from the library through the handle, it gives back through the handle.
#include "check.h"

typedef void* malloc_function(size_t);
typedef void free_function(void*);

static malloc_function* library_malloc;
static free_function* library_free;

static void* use_both(void* unused) {
  for (int round = 0; round < 50; round++) {
    void* objects[100];
    for (size_t i = 0; i < 100; i++) objects[i] = library_malloc(i * i * 40 + 1);
    churn(1);
    for (int i = 0; i < 100; i++) library_free(objects[i]);
  }
  return unused;
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  void* before = malloc(1000);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) fprintf(stderr, "%s\n", dlerror());
  CHECK(library != NULL);
  free(before);
  library_malloc = (malloc_function*)dlsym(library, "malloc");
  library_free = (free_function*)dlsym(library, "free");
  CHECK(library_malloc != NULL && library_free != NULL);
  CHECK(library_malloc != malloc && library_free != free);
  for (int i = 0; i < 100; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_both, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  use_both(NULL);
  pid_t child = fork_checked();
  if (child == 0) {
    use_both(NULL);
    _exit(0);
  }
  CHECK(child_succeeded(child));
  // A thread that has used it may end after this: the library stays, whatever dlclose is told.
  CHECK(dlclose(library) == 0);
  use_both(NULL);
  void* again = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
  CHECK(again != NULL && dlsym(again, "malloc") == (void*)library_malloc);
  return 0;
}
