// The program's own IFUNC resolver allocates, before any constructor has run.
#include "check.h"

enum { kObjects = 100 };
static char* kept[kObjects];

static int answer(void) { return 42; }

typedef int Answer(void);

static Answer* resolve(void) {
  for (int i = 0; i < kObjects; i++) {
    kept[i] = malloc((size_t)i * 1000 + 8);
    for (int k = 0; k < 8; k++) kept[i][k] = (char)(i + k);
  }
  for (int i = 1; i < kObjects; i += 2) free(kept[i]);
  return answer;
}

__attribute__((ifunc("resolve"))) int resolved_answer(void);

int main(void) {
  CHECK(resolved_answer() == 42);
  for (int i = 0; i < kObjects; i += 2) {
    for (int k = 0; k < 8; k++) CHECK(kept[i][k] == (char)(i + k));
    kept[i] = realloc(kept[i], 20000);
    for (int k = 0; k < 8; k++) CHECK(kept[i][k] == (char)(i + k));
    free(kept[i]);
  }
  churn(100);
  return 0;
}
