// Hands a bad pointer (argv[2]) to one form of operator delete (argv[1]).
#include <new>

#include "crime.h"

namespace {

void call_delete(const char* form, void* pointer) {
  const auto alignment = std::align_val_t{64};
  if (strcmp(form, "plain") == 0) operator delete(pointer);
  if (strcmp(form, "array") == 0) operator delete[](pointer);
  if (strcmp(form, "sized") == 0) operator delete(pointer, 48);
  if (strcmp(form, "sized_array") == 0) operator delete[](pointer, 48);
  if (strcmp(form, "nothrow") == 0) operator delete(pointer, std::nothrow);
  if (strcmp(form, "nothrow_array") == 0) operator delete[](pointer, std::nothrow);
  if (strcmp(form, "aligned") == 0) operator delete(pointer, alignment);
  if (strcmp(form, "aligned_array") == 0) operator delete[](pointer, alignment);
  if (strcmp(form, "sized_aligned") == 0) operator delete(pointer, 48, alignment);
  if (strcmp(form, "sized_aligned_array") == 0) operator delete[](pointer, 48, alignment);
  if (strcmp(form, "nothrow_aligned") == 0) operator delete(pointer, alignment, std::nothrow);
  if (strcmp(form, "nothrow_aligned_array") == 0) {
    operator delete[](pointer, alignment, std::nothrow);
  }
}

}  // namespace

int main(int, char** argv) {
  long local[16];
  void* volatile pointer = local;  // volatile: the compiler would reject the crime
  if (strcmp(argv[2], "stack") == 0) {
    announce(pointer);
  } else if (strcmp(argv[2], "interior") == 0) {
    char* object = static_cast<char*>(operator new(1 << 20));
    pointer = object + 128;
    announce_interior(pointer, object);
  } else {
    pointer = operator new(1 << 20);
    operator delete(pointer);
    announce(pointer);
  }
  call_delete(argv[1], pointer);
  return survived();
}
