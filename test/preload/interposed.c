// A program that runs under two preloads: libminitc and lib_interpose, in either order.
#include "check.h"

#include <sys/mman.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void* churn_under_lock(void* unused) {
  for (int i = 0; i < 50; i++) {
    pthread_mutex_lock(&mutex);
    churn(1);
    pthread_mutex_unlock(&mutex);
    churn(1);
  }
  return unused;
}

int main(void) {
  pthread_t threads[4];
  churn(50);
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, churn_under_lock, NULL) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(getenv("LD_PRELOAD") != NULL);
  void* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED && munmap(page, 4096) == 0);
  FILE* file = fopen("/proc/self/maps", "r");
  char* line = NULL;
  size_t capacity = 0;
  int found = 0;
  while (getline(&line, &capacity, file) > 0) found |= strstr(line, "lib_interpose") != NULL;
  free(line);
  fclose(file);
  CHECK(found);
  int (*interposed_calls)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "interposed_calls");
  CHECK(interposed_calls != NULL && interposed_calls() >= 3);
  pid_t child = fork_checked();
  if (child == 0) {
    churn(5);
    _exit(0);
  }
  CHECK(child_succeeded(child));
  return 0;
}
