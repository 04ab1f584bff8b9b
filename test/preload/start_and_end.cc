// LDFLAGS: -L$BUILD/test/preload -l:lib_constructor.so
// Allocations from the first moment that a program has (preinit_array) to the last (destructors,
// atexit and on_exit handlers, static objects): what one moment allocates, another one frees.
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "check.h"

extern "C" int constructed(void);

namespace {

char* from_preinit[100];
char* from_constructor[100];
std::atomic<char*> for_atexit;

void allocate_all(char** objects) {
  for (int i = 0; i < 100; i++) {
    objects[i] = static_cast<char*>(malloc(static_cast<size_t>(i) * 300 + 1));
    objects[i][0] = static_cast<char>(i);
  }
}

void check_and_free(char** objects) {
  for (int i = 0; i < 100; i++) {
    CHECK(objects[i][0] == static_cast<char>(i));
    free(objects[i]);
  }
}

void in_preinit(int, char**, char**) { allocate_all(from_preinit); }

__attribute__((section(".preinit_array"), used)) void (*preinit_entry)(int, char**,
                                                                       char**) = in_preinit;

__attribute__((constructor(102))) void in_constructor() { allocate_all(from_constructor); }

void say(const char* text) { CHECK(write(STDOUT_FILENO, text, strlen(text)) > 0); }

__attribute__((destructor)) void in_destructor() {
  check_and_free(from_constructor);
  churn(50);
  say("destructor\n");
}

struct Static {
  std::vector<std::unique_ptr<std::string>> strings;
  Static() {
    for (int i = 0; i < 1000; i++) strings.push_back(std::make_unique<std::string>(i, 'x'));
  }
  ~Static() {
    for (int i = 0; i < 1000; i++) CHECK(strings[i]->size() == static_cast<size_t>(i));
    strings.clear();
    churn(50);
    say("static object\n");
  }
};

Static static_object;

void at_exit() {
  churn(50);
  free(for_atexit.exchange(nullptr));
  free(strdup("allocated and freed at exit"));
  say("atexit\n");
}

void on_exit_handler(int status, void* object) {
  CHECK(status == 0 && strcmp(static_cast<char*>(object), "for on_exit") == 0);
  free(object);
  say("on_exit\n");
}

}  // namespace

int main() {
  CHECK(constructed());
  check_and_free(from_preinit);
  CHECK(static_object.strings.size() == 1000);
  for_atexit = strdup("for atexit");
  CHECK(atexit(at_exit) == 0);
  CHECK(on_exit(on_exit_handler, strdup("for on_exit")) == 0);
  churn(50);
  return 0;
}
