// Plugins opened with RTLD_DEEPBIND, and how dlopen and dlmopen see their callers. argv[2],
// argv[3]: the plugin, lib_neighbour.so, and the one that opens others, in one folder, which is not
// this program's.
#include "check.h"

#include <link.h>

static const char* plugin_path;
static const char* opener_path;

typedef struct Plugin {
  void* handle;
  void* (*malloc_address)(void);
  void* (*allocate)(size_t);
  void* (*resize)(void*, size_t);
  void (*release)(void*);
} Plugin;

static void* opened(void* handle) {
  if (handle == NULL) fprintf(stderr, "%s\n", dlerror());
  CHECK(handle != NULL);
  return handle;
}

static void* find(void* handle, const char* name) {
  void* found = dlsym(handle, name);
  CHECK(found != NULL);
  return found;
}

static Plugin plugin_of(void* handle) {
  Plugin plugin = {.handle = opened(handle)};
  *(void**)&plugin.malloc_address = find(handle, "plugin_malloc");
  *(void**)&plugin.allocate = find(handle, "plugin_allocate");
  *(void**)&plugin.resize = find(handle, "plugin_resize");
  *(void**)&plugin.release = find(handle, "plugin_release");
  return plugin;
}

// Objects cross between program and plugin in both directions.
static void exchange(Plugin plugin) {
  CHECK(plugin.malloc_address() == (void*)malloc);
  for (size_t bytes = 1; bytes < 2000000; bytes += 1 + bytes / 3) {
    char* ours = malloc(bytes);
    char* theirs = plugin.allocate(bytes);
    CHECK(malloc_usable_size(theirs) >= bytes);
    fill(ours, bytes, 1);
    fill(theirs, bytes, 2);
    ours = plugin.resize(ours, bytes * 2);
    theirs = realloc(theirs, bytes * 2);
    CHECK(is_filled(ours, bytes, 1) && is_filled(theirs, bytes, 2));
    plugin.release(ours);
    free(theirs);
  }
}

static void exchange_and_close(void* handle) {
  exchange(plugin_of(handle));
  CHECK(dlclose(handle) == 0);
}

static void dlopen_exchange(void) {
  static const int modes[] = {RTLD_NOW, RTLD_LAZY, RTLD_NOW | RTLD_GLOBAL,
                              RTLD_NOW | RTLD_NODELETE};
  for (int i = 0; i < 4; i++) exchange_and_close(dlopen(plugin_path, modes[i] | RTLD_DEEPBIND));
}

static void dlmopen_exchange(void) {
  exchange(plugin_of(dlmopen(LM_ID_BASE, plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
}

static void* open_and_exchange(void* unused) {
  exchange(plugin_of(dlopen(plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  return unused;
}

static void first_calls_of_threads(void) {
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) {
    CHECK(pthread_create(&threads[i], NULL, open_and_exchange, NULL) == 0);
  }
  for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void early_constructor(void) {
  void* (*early_handle)(void) = (void* (*)(void))find(RTLD_DEFAULT, "early_handle");
  exchange(plugin_of(early_handle()));
}

typedef void* open_function(const char*, int);
typedef void* open_in_space_function(Lmid_t, const char*, int);

// The caller's RUNPATH and $ORIGIN count: this program's do not lead to the plugin.
static void neighbours(void* opener) {
  static const char* const names[] = {"lib_neighbour.so", "$ORIGIN/lib_neighbour.so"};
  open_function* open = (open_function*)find(opener, "open_for_plugin");
  open_in_space_function* open_in_space =
      (open_in_space_function*)find(opener, "open_in_space_for_plugin");
  for (int i = 0; i < 2; i++) {
    CHECK(dlopen(names[i], RTLD_NOW) == NULL);
    CHECK(strstr(dlerror(), "lib_neighbour.so: cannot open shared object file") != NULL);
  }
  for (int i = 0; i < 2; i++) {
    for (int flag = 0; flag <= RTLD_DEEPBIND; flag += RTLD_DEEPBIND) {
      exchange_and_close(open(names[i], RTLD_NOW | flag));
      exchange_and_close(open_in_space(LM_ID_BASE, names[i], RTLD_NOW | flag));
    }
  }
}

static void neighbours_of_a_plugin(void) { neighbours(opened(dlopen(opener_path, RTLD_NOW))); }

static void neighbours_of_a_deep_plugin(void) {
  neighbours(opened(dlopen(opener_path, RTLD_NOW | RTLD_DEEPBIND)));
}

static Lmid_t space_of(void* handle) {
  Lmid_t space = -2;
  CHECK(dlinfo(handle, RTLD_DI_LMID, &space) == 0);
  return space;
}

// A namespace of its own has a libc of its own: nothing of it is ours, with the flag or without.
static void new_space(int flag) {
  Plugin plugin = plugin_of(dlmopen(LM_ID_NEWLM, plugin_path, RTLD_NOW | flag));
  CHECK(space_of(plugin.handle) != LM_ID_BASE);
  CHECK(plugin.malloc_address() != (void*)malloc);
  plugin.release(plugin.resize(plugin.allocate(100), 300000));
  // What a plugin there opens comes into that namespace.
  void* opener = opened(dlmopen(space_of(plugin.handle), opener_path, RTLD_NOW | flag));
  CHECK(space_of(opener) == space_of(plugin.handle));
  open_function* open = (open_function*)find(opener, "open_for_plugin");
  CHECK(opened(open("lib_neighbour.so", RTLD_NOW | flag)) == plugin.handle);
  // What this program opens does not.
  CHECK(space_of(opened(dlopen(plugin_path, RTLD_NOW | flag))) == LM_ID_BASE);
  churn(10);
}

static void new_space_plain(void) { new_space(0); }
static void new_space_deep(void) { new_space(RTLD_DEEPBIND); }

static void errors(void) {
  static const int modes[] = {RTLD_NOW, RTLD_NOW | RTLD_DEEPBIND};
  for (int i = 0; i < 2; i++) {
    CHECK(dlopen("/no/such/library.so", modes[i]) == NULL);
    CHECK(strstr(dlerror(), "/no/such/library.so: cannot open") != NULL && dlerror() == NULL);
    CHECK(dlmopen(LM_ID_NEWLM, "/no/such/library.so", modes[i]) == NULL);
    CHECK(strstr(dlerror(), "/no/such/library.so: cannot open") != NULL && dlerror() == NULL);
    CHECK(dlopen(plugin_path, modes[i] & ~RTLD_NOW) == NULL);
    CHECK(strstr(dlerror(), "invalid mode") != NULL);
    void* program = opened(dlopen(NULL, modes[i]));
    CHECK(find(program, "malloc") == (void*)malloc);
    CHECK(dlopen(plugin_path, modes[i] | RTLD_NOLOAD) == NULL);
    CHECK(dlerror() == NULL);  // not an error
  }
}

static int mode_of_call(void) { return ((int (*)(void))find(RTLD_DEFAULT, "wrapper_mode"))(); }

// Whether the wrapper was called from this program, as far as it could see.
static int called_from_here(void) {
  void* caller = ((void* (*)(void))find(RTLD_DEFAULT, "wrapper_caller"))();
  Dl_info from;
  Dl_info here;
  CHECK(dladdr(caller, &from) != 0 && dladdr((void*)called_from_here, &here) != 0);
  return from.dli_fbase == here.dli_fbase;
}

// Another preload's wrapper, behind the library: it sees the program's call, without the flag.
static void wrapper_behind(void) {
  exchange(plugin_of(dlopen(plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  CHECK(mode_of_call() == RTLD_NOW && called_from_here());
  opened(dlopen(plugin_path, RTLD_LAZY | RTLD_GLOBAL));
  CHECK(mode_of_call() == (RTLD_LAZY | RTLD_GLOBAL) && called_from_here());
  exchange(plugin_of(dlmopen(LM_ID_BASE, plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  CHECK(mode_of_call() == RTLD_NOW && called_from_here());
  opened(dlmopen(LM_ID_NEWLM, plugin_path, RTLD_NOW | RTLD_DEEPBIND));
  CHECK(mode_of_call() == (RTLD_NOW | RTLD_DEEPBIND) && called_from_here());
  CHECK(((int (*)(void))find(RTLD_DEFAULT, "wrapper_calls"))() == 4);
}

// In front of the library: it sees what the program said.
static void wrapper_in_front(void) {
  exchange(plugin_of(dlopen(plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  CHECK(mode_of_call() == (RTLD_NOW | RTLD_DEEPBIND) && called_from_here());
  exchange(plugin_of(dlmopen(LM_ID_BASE, plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  CHECK(((int (*)(void))find(RTLD_DEFAULT, "wrapper_calls"))() == 2);
}

static void wrapped_dlsym(void) {
  exchange(plugin_of(dlopen(plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  exchange(plugin_of(dlmopen(LM_ID_BASE, plugin_path, RTLD_NOW | RTLD_DEEPBIND)));
  neighbours_of_a_plugin();
  CHECK(((int (*)(void))find(RTLD_DEFAULT, "wrapped_dlsym_calls"))() >= 2);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"dlopen_exchange", dlopen_exchange},
      {"dlmopen_exchange", dlmopen_exchange},
      {"first_calls_of_threads", first_calls_of_threads},
      {"neighbours_of_a_plugin", neighbours_of_a_plugin},
      {"neighbours_of_a_deep_plugin", neighbours_of_a_deep_plugin},
      {"new_space_plain", new_space_plain},
      {"new_space_deep", new_space_deep},
      {"errors", errors},
      {"early_constructor", early_constructor},
      {"wrapper_behind", wrapper_behind},
      {"wrapper_in_front", wrapper_in_front},
      {"wrapped_dlsym", wrapped_dlsym},
      {NULL, NULL},
  };
  CHECK(argc == 4);
  plugin_path = argv[2];
  opener_path = argv[3];
  return run_case(argc, argv, cases);
}
