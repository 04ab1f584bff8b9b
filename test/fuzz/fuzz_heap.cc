// The entry point that libFuzzer calls with each input. `make fuzz` builds and runs it.
#include <cstddef>
#include <cstdint>

#include "test/model/model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  minitc::test::run_input({reinterpret_cast<const char*>(data), size});
  return 0;
}
