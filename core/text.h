// A line of text in a fixed buffer: what the allocator says is built here, without stdio.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minitc {

// The number that `s` begins with; what follows it, or null if it begins with none or it overflows.
inline const char* parse_digits(const char* s, std::size_t& value) {
  value = 0;
  const char* const digits = s;
  for (; *s >= '0' && *s <= '9'; ++s) {
    if (__builtin_mul_overflow(value, std::size_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<std::size_t>(*s - '0'), &value)) {
      return nullptr;
    }
  }
  return s == digits ? nullptr : s;
}

// What does not fit is cut off, which shows at the end of a line; the caller's line stays one line.
class Text {
 public:
  Text& operator<<(const char* s) {
    while (*s != '\0') put(*s++);
    return *this;
  }
  Text& operator<<(char c) {
    put(c);
    return *this;
  }
  Text& operator<<(std::size_t n) { return number(n, 10, 0); }
  Text& operator<<(std::uint32_t n) { return number(n, 10, 0); }
  Text& operator<<(const void* ptr) {
    return (*this << "0x").number(reinterpret_cast<std::uintptr_t>(ptr), 16, 0);
  }
  // Ends the line; there is always room for that.
  Text& end_line() {
    if (length_ == kCapacity) {
      length_ -= sizeof("...");
      *this << "...";
    }
    put('\n');
    return *this;
  }
  // `n` right-aligned in `width` columns.
  Text& column(std::size_t n, std::size_t width) { return number(n, 10, width); }
  // `s` left-aligned in `width` columns.
  Text& column(const char* s, std::size_t width) {
    const std::size_t end = length_ + width;
    *this << s;
    while (length_ < end && length_ < kCapacity) put(' ');
    return *this;
  }

  const char* data() const { return buffer_; }
  std::size_t size() const { return length_; }

 private:
  static constexpr std::size_t kCapacity = 400;

  void put(char c) {
    if (length_ < kCapacity) buffer_[length_++] = c;
  }
  Text& number(std::uint64_t n, unsigned base, std::size_t width) {
    char digits[20];
    std::size_t count = 0;
    do {
      digits[count++] = "0123456789abcdef"[n % base];
      n /= base;
    } while (n != 0);
    for (std::size_t i = count; i < width; ++i) put(' ');
    while (count != 0) put(digits[--count]);
    return *this;
  }

  std::size_t length_ = 0;
  char buffer_[kCapacity];
};

}  // namespace minitc
