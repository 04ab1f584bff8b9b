// Frees the place next to a live small object, which was carved but never handed out.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  char* object = malloc(3000);
  return commit(argv, object + malloc_usable_size(object));
}
