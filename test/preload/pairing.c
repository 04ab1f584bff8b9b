// Allocates with the function argv[1] and frees with argv[2], both found by name as the program's
// libraries would find them. The objects are freed for good: the heap must not grow over the
// rounds.
#include "check.h"

typedef void* one_size(size_t);
typedef void* two_sizes(size_t, size_t);
typedef void* resize(void*, size_t);
typedef void* resize_array(void*, size_t, size_t);
typedef int into(void**, size_t, size_t);

static void* find(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (found == NULL) {
    fprintf(stderr, "no symbol %s\n", name);
    exit(1);
  }
  return found;
}

enum { kAlignment = 64 };

static int is_one_of(const char* name, const char* list) {
  const char* at = strstr(list, name);
  size_t length = strlen(name);
  return at != NULL && at[length] == ' ' && (at == list || at[-1] == ' ');
}

static void* allocate(const char* name, void* function, size_t bytes) {
  void* object = NULL;
  if (is_one_of(name, "calloc __libc_calloc ")) return ((two_sizes*)function)(1, bytes);
  if (is_one_of(name, "realloc __libc_realloc ")) return ((resize*)function)(NULL, bytes);
  if (is_one_of(name, "reallocarray ")) return ((resize_array*)function)(NULL, bytes, 1);
  if (is_one_of(name, "memalign aligned_alloc __libc_memalign ")) {
    return ((two_sizes*)function)(kAlignment, bytes);
  }
  if (is_one_of(name, "posix_memalign __posix_memalign ")) {
    return ((into*)function)(&object, kAlignment, bytes) == 0 ? object : NULL;
  }
  // nothrow_t is empty: any address does for its reference.
  if (is_one_of(name, "_ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t ")) {
    return ((void* (*)(size_t, void*))function)(bytes, &object);
  }
  if (is_one_of(name, "_ZnwmSt11align_val_t _ZnamSt11align_val_t ")) {
    return ((two_sizes*)function)(bytes, kAlignment);
  }
  if (is_one_of(name, "_ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t ")) {
    return ((void* (*)(size_t, size_t, void*))function)(bytes, kAlignment, &object);
  }
  return ((one_size*)function)(bytes);
}

static void release(const char* name, void* function, void* object, size_t bytes) {
  typedef void by_pointer(void*);
  typedef void by_size(void*, size_t);
  typedef void by_two_sizes(void*, size_t, size_t);
  static char nothrow;
  if (is_one_of(name, "realloc __libc_realloc ")) {
    CHECK(((resize*)function)(object, 0) == NULL);
  } else if (is_one_of(name, "reallocarray ")) {
    CHECK(((resize_array*)function)(object, bytes, 0) == NULL);
  } else if (is_one_of(name, "free_sized _ZdlPvm _ZdaPvm ")) {
    ((by_size*)function)(object, bytes);
  } else if (is_one_of(name, "free_aligned_sized ")) {
    ((by_two_sizes*)function)(object, kAlignment, bytes);
  } else if (is_one_of(name, "_ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t ")) {
    ((void (*)(void*, void*))function)(object, &nothrow);
  } else if (is_one_of(name, "_ZdlPvSt11align_val_t _ZdaPvSt11align_val_t ")) {
    ((by_size*)function)(object, kAlignment);
  } else if (is_one_of(name, "_ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t ")) {
    ((by_two_sizes*)function)(object, bytes, kAlignment);
  } else if (is_one_of(name,
                       "_ZdlPvSt11align_val_tRKSt9nothrow_t "
                       "_ZdaPvSt11align_val_tRKSt9nothrow_t ")) {
    ((void (*)(void*, size_t, void*))function)(object, kAlignment, &nothrow);
  } else {
    ((by_pointer*)function)(object);
  }
}

int main(int argc, char** argv) {
  static const size_t sizes[] = {1, 8, 9, 40, 100, 1000, 5000, 70000, 131072, 300000, 3000000};
  enum { kSizes = sizeof sizes / sizeof sizes[0] };
  CHECK(argc == 3);
  void* allocate_function = find(argv[1]);
  void* release_function = find(argv[2]);
  for (int round = 0; round < 40; round++) {
    void* objects[kSizes];
    for (int i = 0; i < kSizes; i++) {
      objects[i] = allocate(argv[1], allocate_function, sizes[i]);
      CHECK(objects[i] != NULL);
      CHECK(malloc_usable_size(objects[i]) >= sizes[i]);
      fill(objects[i], sizes[i] < 9000 ? sizes[i] : 9000, (unsigned)i);
    }
    for (int i = 0; i < kSizes; i++) {
      CHECK(is_filled(objects[i], sizes[i] < 9000 ? sizes[i] : 9000, (unsigned)i));
      release(argv[2], release_function, objects[i], sizes[i]);
    }
  }
  // 40 rounds of 3.6 MB: anything not freed shows.
  struct mallinfo2 info = mallinfo2();
  CHECK(info.uordblks + info.hblkhd < (8u << 20));
  return 0;
}
