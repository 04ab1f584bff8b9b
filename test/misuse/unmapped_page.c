// Frees an address where nothing is mapped any more: a lookup must not read through the pointer.
#include "crime.h"

#include <sys/mman.h>

int main(int argc, char** argv) {
  (void)argc;
  char* page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED || munmap(page, 1 << 20) != 0) return 2;
  return commit(argv, page + 4096);
}
