// LDFLAGS: -L$BUILD/test/preload -l:lib_ifunc.so
// A dependency's IFUNC resolver allocated before this program began.
#include "check.h"

extern int call_resolved(void);
extern int check_kept(void);

int main(void) {
  CHECK(call_resolved() == 42);
  CHECK(check_kept());
  churn(100);
  return 0;
}
