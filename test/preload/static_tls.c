// Opens the libraries that the arguments name. Each needs static TLS, of which the loader has a
// fixed surplus: what the allocator takes of it is missing for them.
#include "check.h"

static void* use_all(void* functions) {
  int (**use)(int) = functions;
  for (int i = 0; use[i] != NULL; i++) CHECK(use[i](i) == (char)i);
  return NULL;
}

int main(int argc, char** argv) {
  static int (*use[100])(int);
  CHECK(argc > 1 && argc < 100);
  for (int i = 1; i < argc; i++) {
    void* library = dlopen(argv[i], RTLD_NOW);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    use[i - 1] = (int (*)(int))dlsym(library, "use_block");
    CHECK(use[i - 1] != NULL);
  }
  use_all(use);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, use_all, use) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  return 0;
}
