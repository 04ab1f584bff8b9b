// Frees a live object (of argv[3] bytes) through a pointer with foreign bits (argv[2]) set at its
// top.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  uintptr_t object = (uintptr_t)malloc(strtoull(argv[3], NULL, 0));
  return commit(argv, (void*)(object | strtoull(argv[2], NULL, 16)));
}
