// Libraries opened and closed while the program runs. argv[2], argv[3]: paths of the plugins.
#include "check.h"

static char** arguments;

typedef int work_function(int);
typedef int throw_function(size_t);

static void* open_library(const char* path, int flags) {
  void* library = dlopen(path, flags);
  if (library == NULL) fprintf(stderr, "%s\n", dlerror());
  CHECK(library != NULL);
  return library;
}

static void* find(void* library, const char* name) {
  void* found = dlsym(library, name);
  CHECK(found != NULL);
  return found;
}

static void open_and_work(int rounds) {
  void* library = open_library(arguments[2], RTLD_NOW | RTLD_LOCAL);
  CHECK(((work_function*)find(library, "plugin_work"))(rounds) == 1);
  CHECK(dlclose(library) == 0);
}

static void open_and_close(void) {
  long before = 0;
  // The first use of libstdc++ stays; only the plugin comes and goes.
  void* stays = open_library("libstdc++.so.6", RTLD_NOW);
  for (int i = 0; i < 500; i++) {
    if (i == 100) before = resident_kib();
    open_and_work(100);
  }
  CHECK(resident_kib() - before <= 1024);
  dlclose(stays);
}

static void* open_and_work_in_thread(void* unused) {
  open_and_work(500);
  return unused;
}

static void open_in_threads(void) {
  for (int round = 0; round < 40; round++) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
      CHECK(pthread_create(&threads[i], NULL, open_and_work_in_thread, NULL) == 0);
    }
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  }
}

static void missing_symbols(void) {
  // The error text is allocated per thread and freed when the thread, or the program, ends.
  for (int i = 0; i < 1000; i++) {
    CHECK(dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere") == NULL);
    CHECK(strstr(dlerror(), "no_such_symbol_anywhere") != NULL);
    CHECK(dlopen("/no/such/library.so", RTLD_NOW) == NULL && dlerror() != NULL);
  }
}

static throw_function* thrower(const char* name) {
  return (throw_function*)find(open_library(arguments[3], RTLD_NOW | RTLD_LOCAL), name);
}

static void late_cxx_is_not_there_yet(void) { CHECK(dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL); }

static void late_cxx_bad_alloc(void) {
  late_cxx_is_not_there_yet();
  throw_function* catch_bad_alloc = thrower("catch_bad_alloc");
  CHECK(dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL);
  CHECK(catch_bad_alloc(SIZE_MAX / 2 + 1) == 0);
  CHECK(catch_bad_alloc(SIZE_MAX / 4) == 0);
  CHECK(catch_bad_alloc(1000) == 1);
}

static void late_cxx_handler(void) {
  late_cxx_is_not_there_yet();
  CHECK(thrower("catch_from_handler")(SIZE_MAX / 4) == 0);
}

static void late_cxx_nothrow(void) {
  late_cxx_is_not_there_yet();
  CHECK(thrower("nothrow_returns_null")(SIZE_MAX / 4) == 0);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"open_and_close", open_and_close},
      {"open_in_threads", open_in_threads},
      {"missing_symbols", missing_symbols},
      {"late_cxx_bad_alloc", late_cxx_bad_alloc},
      {"late_cxx_handler", late_cxx_handler},
      {"late_cxx_nothrow", late_cxx_nothrow},
      {NULL, NULL},
  };
  arguments = argv;
  CHECK(argc == 4);
  return run_case(argc, argv, cases);
}
