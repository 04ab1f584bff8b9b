// Frees what a second copy of libc, in a link namespace of its own, allocated with its own malloc.
#include "crime.h"

int main(int argc, char** argv) {
  (void)argc;
  typedef char* strdup_function(const char*);
  void* libc = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
  strdup_function* other_strdup = libc == NULL ? NULL : (strdup_function*)dlsym(libc, "strdup");
  if (other_strdup == NULL) return 2;
  return commit(argv, other_strdup("a string of the other namespace"));
}
