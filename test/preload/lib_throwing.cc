// A C++ plugin of a C program: libstdc++ comes with it, late and with local scope.
#include <new>
#include <stdexcept>
#include <string>

namespace {

int handler_calls;
void* reserve;

void release_reserve() {
  handler_calls++;
  if (reserve == nullptr) throw std::runtime_error("handler");
  operator delete(reserve);
  reserve = nullptr;
}

}  // namespace

// 0 when `new` of a huge object threw std::bad_alloc, through these very frames.
extern "C" int catch_bad_alloc(size_t bytes) {
  try {
    operator delete(operator new(bytes));
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  } catch (...) {
    return 2;
  }
}

// 0 when the plugin's new_handler was called, twice, and what it threw arrived.
extern "C" int catch_from_handler(size_t bytes) {
  reserve = operator new(1000);
  std::set_new_handler(release_reserve);
  int result = 1;
  try {
    operator delete(operator new(bytes));
  } catch (const std::runtime_error& error) {
    result = handler_calls == 2 && std::string(error.what()) == "handler" ? 0 : 2;
  }
  std::set_new_handler(nullptr);
  return result;
}

// 0 when the nothrow form returned null although the handler throws.
extern "C" int nothrow_returns_null(size_t bytes) {
  std::set_new_handler([] { throw std::bad_alloc(); });
  void* object = operator new(bytes, std::nothrow);
  std::set_new_handler(nullptr);
  operator delete(object);
  return object == nullptr ? 0 : 1;
}
