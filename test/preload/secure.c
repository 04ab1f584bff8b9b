// Says whether it runs in secure mode (set-user-ID, set-group-ID or file capabilities) and in which
// library malloc is. The test links it with the library itself: LD_PRELOAD is ignored in that mode.
#include "check.h"

#include <sys/auxv.h>

int main(void) {
  Dl_info where;
  churn(10);
  CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &where) != 0);
  const char* name = strrchr(where.dli_fname, '/');
  printf("%s %s\n", getauxval(AT_SECURE) ? "secure" : "plain", name ? name + 1 : where.dli_fname);
  return 0;
}
