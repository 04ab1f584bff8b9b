// The decisions of a test that makes them at random, or as an input says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/config.h"
#include "core/options.h"
#include "test/unit/support.h"

namespace minitc::test {

class Choices {
 public:
  virtual ~Choices() = default;
  // 0 to n - 1.
  virtual std::size_t below(std::size_t n) = 0;
  // True when nothing is left to decide; what is asked for in spite of that is 0.
  virtual bool ended() const { return false; }

  bool one_in(std::size_t n) { return below(n) == n - 1; }
  template <typename T, std::size_t N>
  T one_of(const T (&values)[N]) {
    return values[below(N)];
  }
};

class Seeded : public Choices {
 public:
  explicit Seeded(std::uint64_t seed) : random_(seed) {}
  std::size_t below(std::size_t n) override { return random_.below(n); }

 private:
  Random random_;
};

// Each decision takes as many bytes as its range needs.
class Bytes : public Choices {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}

  std::size_t below(std::size_t n) override {
    std::size_t value = 0;
    for (std::size_t range = n - 1; range != 0 && !ended(); range >>= 8) {
      value = value << 8 | static_cast<unsigned char>(bytes_.front());
      bytes_.remove_prefix(1);
    }
    return value % n;
  }
  bool ended() const override { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

// The largest page of a kernel. Whole ones can be moved and returned whatever the kernel's page is.
inline constexpr std::size_t kMaxPageBytes = 64 * 1024;

// Every class as often as any other, and with it the sizes at its edges; some sizes above; a few
// that nobody can have.
std::size_t choose_size(Choices& choices);
Options choose_options(Choices& choices);
std::size_t choose_page_bytes(Choices& choices);
FakeOs::Layout choose_layout(Choices& choices);

}  // namespace minitc::test
