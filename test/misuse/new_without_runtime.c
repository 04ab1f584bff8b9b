// A program without a C++ runtime asks operator new for too much: nobody can throw std::bad_alloc.
#include "crime.h"

int main(void) {
  typedef void* new_function(size_t);
  new_function* operator_new = (new_function*)symbol("_Znwm");
  announce(operator_new(100) == NULL ? NULL : (void*)1);
  void* volatile object = operator_new(SIZE_MAX / 4);
  (void)object;
  return survived();
}
