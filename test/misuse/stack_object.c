// Frees a local variable.
#include "crime.h"

int main(int argc, char** argv) {
  long object[16];
  (void)argc;
  return commit(argv, object);
}
