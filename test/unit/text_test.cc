#include "core/text.h"

#include <catch2/catch.hpp>
#include <string>

namespace minitc {
namespace {

std::string string_of(const Text& text) { return {text.data(), text.size()}; }

TEST_CASE("text: strings, characters and numbers") {
  Text text;
  text << "a" << 'b' << "" << std::size_t{0} << ' ' << std::uint32_t{4294967295U} << ' '
       << SIZE_MAX;
  CHECK(string_of(text) == "ab0 4294967295 18446744073709551615");
}

TEST_CASE("text: pointers are hexadecimal in lower case") {
  Text text;
  text << reinterpret_cast<const void*>(std::uintptr_t{0xdeadBEEF01}) << ' '
       << static_cast<const void*>(nullptr) << ' ' << reinterpret_cast<const void*>(UINTPTR_MAX);
  CHECK(string_of(text) == "0xdeadbeef01 0x0 0xffffffffffffffff");
}

TEST_CASE("text: columns are padded, and what is longer is not cut") {
  Text text;
  text.column(std::size_t{42}, 5) << '|';
  text.column("ab", 4) << '|';
  text.column(std::size_t{12345}, 3) << '|';
  text.column("abc", 2) << '|';
  text.column(std::size_t{7}, 0) << '|';
  CHECK(string_of(text) == "   42|ab  |12345|abc|7|");
}

TEST_CASE("text: what does not fit is cut off") {
  const std::string part = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string all;
  Text text;
  for (int i = 0; i < 100; ++i) {
    text << part.c_str();
    all += part;
  }
  const std::size_t capacity = text.size();
  CHECK(capacity >= 256);
  CHECK(capacity < all.size());
  CHECK(string_of(text) == all.substr(0, capacity));
  text << 'x' << SIZE_MAX;
  text.column("y", 10);
  text.column(std::size_t{1}, 10);
  CHECK(string_of(text) == all.substr(0, capacity));
}

TEST_CASE("text: there is always room for the end of the line, and what was cut off shows") {
  Text text;
  text << "ab";
  CHECK(string_of(text.end_line()) == "ab\n");
  for (int i = 0; i < 1000; ++i) text << 'x';
  const std::size_t capacity = text.size();
  text.end_line();
  CHECK(text.size() == capacity);
  CHECK(string_of(text) == "ab\n" + std::string(capacity - 7, 'x') + "...\n");
}

TEST_CASE("text: a column that reaches beyond the end stops there") {
  Text text;
  std::size_t before;
  do {
    before = text.size();
    text.column("x", 90);
  } while (text.size() == before + 90);
  CHECK(string_of(text).substr(before) == "x" + std::string(text.size() - before - 1, ' '));
}

}  // namespace
}  // namespace minitc
