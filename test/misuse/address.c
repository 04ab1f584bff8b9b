// Frees the address argv[2], a number that never was a pointer.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  return commit(argv, (void*)(uintptr_t)strtoull(argv[2], NULL, 16));
}
