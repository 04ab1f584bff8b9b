// Frees static data, initialised (argv[2] = data), zero (bss) or constant (rodata).
#include "crime.h"

static char in_data[64] = "data";
static char in_bss[64];
static const char in_rodata[64] = "rodata";

int main(int argc, char** argv) {
  (void)argc;
  if (strcmp(argv[2], "data") == 0) return commit(argv, in_data);
  if (strcmp(argv[2], "bss") == 0) return commit(argv, in_bss);
  return commit(argv, (void*)in_rodata);
}
