// Frees a page that the program mapped itself, from its first byte or from within (argv[2]).
#include "crime.h"

#include <sys/mman.h>

int main(int argc, char** argv) {
  (void)argc;
  char* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return 2;
  return commit(argv, page + atoi(argv[2]));
}
