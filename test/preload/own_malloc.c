// A program that brings the four functions of an allocator of its own, as many do, and no more.
// glibc's other functions stand on these four or have blocks of their own; with the library between
// them no function may hand one allocator's block to the other.
#include "check.h"

enum { kHeaderBytes = 32 };
static const uint64_t kMagic = 0x6f776e2062c3b6c3;
static char heap[1 << 20];
static size_t used;
static long live;

void* malloc(size_t bytes) {
  if (bytes > sizeof heap - used - 2 * kHeaderBytes) return NULL;
  uint64_t* block = (uint64_t*)(heap + used);
  block[0] = kMagic;
  block[1] = bytes;
  used += kHeaderBytes + (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
  live++;
  return (char*)block + kHeaderBytes;
}

static uint64_t* header_of(void* object) {
  uint64_t* block = (uint64_t*)((char*)object - kHeaderBytes);
  CHECK((char*)block >= heap && (char*)block < heap + used && block[0] == kMagic);
  return block;
}

void free(void* object) {
  if (object == NULL) return;
  header_of(object)[0] = 0;
  live--;
}

void* calloc(size_t count, size_t size) { return malloc(count * size); }

void* realloc(void* object, size_t bytes) {
  if (object == NULL) return malloc(bytes);
  if (bytes == 0) {
    free(object);
    return NULL;
  }
  size_t before = header_of(object)[1];
  void* moved = malloc(bytes);
  if (moved == NULL) return NULL;
  memcpy(moved, object, bytes < before ? bytes : before);
  free(object);
  return moved;
}

static int is_own(void* object) {
  return (char*)object >= heap && (char*)object < heap + used && header_of(object)[0] == kMagic;
}

static void resized_arrays(void) {
  char* array = reallocarray(NULL, 10, 10);
  CHECK(is_own(array));
  fill(array, 100, 1);
  array = reallocarray(array, 100, 50);
  CHECK(is_own(array) && is_filled(array, 100, 1));
  free(array);
  array = malloc(10);
  array = reallocarray(array, 20, 20);
  CHECK(is_own(array));
  volatile size_t too_many = SIZE_MAX / 2;
  CHECK(reallocarray(array, too_many, 3) == NULL && errno == ENOMEM && is_own(array));
  CHECK(reallocarray(array, 0, 3) == NULL);
}

static void sized_frees(void) {
  void (*free_sized)(void*, size_t) = (void (*)(void*, size_t))dlsym(RTLD_DEFAULT, "free_sized");
  void (*free_aligned_sized)(void*, size_t, size_t) =
      (void (*)(void*, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
  if (free_sized == NULL || free_aligned_sized == NULL) skip("this libc has no free_sized");
  free_sized(malloc(100), 100);
  free_sized(NULL, 100);
  free_aligned_sized(malloc(100), 16, 100);
}

static void what_libc_allocates(void) {
  char* text = strdup("text");
  CHECK(is_own(text));
  free(text);
  CHECK(asprintf(&text, "%d", 12345) == 5 && is_own(text));
  free(text);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"resized_arrays", resized_arrays},
      {"sized_frees", sized_frees},
      {"what_libc_allocates", what_libc_allocates},
      {NULL, NULL},
  };
  long before = live;
  int status = run_case(argc, argv, cases);
  CHECK(live == before);
  return status;
}
