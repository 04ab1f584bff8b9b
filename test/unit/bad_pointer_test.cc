#include "core/bad_pointer.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

struct Case {
  Verdict verdict;
  const char* of_free;   // what is said of it when it was freed
  const char* of_other;  // and when realloc or malloc_usable_size was called
};

const std::string kForeignText =
    "foreign pointer: not allocated by libminitc; stack, static, mapped or another allocator's "
    "memory, perhaps a plugin loaded with RTLD_DEEPBIND";
const std::string kInteriorText =
    "interior pointer: the object begins at 0x12340000 and has 48 bytes";

const std::vector<Case> kCases = {
    {Verdict::kForeign, kForeignText.c_str(), kForeignText.c_str()},
    {Verdict::kInterior, kInteriorText.c_str(), kInteriorText.c_str()},
    {Verdict::kFreed, "double free: the object is already free",
     "stale pointer: the object is already free"},
    {Verdict::kStale, "stale pointer: its pages are free", "stale pointer: its pages are free"},
};

std::string last_words(Caller caller, Verdict verdict) {
  const Finding finding{verdict, 0x12340000, 48};
  return test::ending_of([=] {
    die_of_bad_pointer(caller, reinterpret_cast<void*>(std::uintptr_t{0x1234abcd}), finding);
  });
}

TEST_CASE("bad pointer: each verdict on each call has its words") {
  for (const Case& c : kCases) {
    CHECK(last_words(Caller::kFree, c.verdict) ==
          test::death(std::string("free(0x1234abcd): ") + c.of_free));
    CHECK(last_words(Caller::kRealloc, c.verdict) ==
          test::death(std::string("realloc(0x1234abcd): ") + c.of_other));
    CHECK(last_words(Caller::kUsableSize, c.verdict) ==
          test::death(std::string("malloc_usable_size(0x1234abcd): ") + c.of_other));
  }
}

TEST_CASE("bad pointer: what is found late says so, and how to find it early") {
  for (const Case& c : kCases) {
    CHECK(last_words(Caller::kFreeLate, c.verdict) ==
          test::death(std::string("free(0x1234abcd): ") + c.of_free +
                      " (found when it left the thread cache; MINITC_CHECK_FREE=1 finds it at the "
                      "call)"));
  }
}

TEST_CASE("bad pointer: the longest message is not cut off") {
  const Finding finding{Verdict::kInterior, UINTPTR_MAX, SIZE_MAX};
  const std::string said = test::ending_of([=] {
    die_of_bad_pointer(Caller::kFreeLate, reinterpret_cast<void*>(UINTPTR_MAX), finding);
  });
  CHECK(said.find("begins at 0xffffffffffffffff and has 18446744073709551615 bytes (found") !=
        std::string::npos);
  CHECK(said.substr(said.size() - 10) == "the call)\n");
}

}  // namespace
}  // namespace minitc
