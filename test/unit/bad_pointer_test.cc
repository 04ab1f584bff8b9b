#include "core/bad_pointer.h"

#include <algorithm>
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

const std::string kForeign = "foreign pointer: not allocated by libminitc; ";
const std::string kForeignText = kForeign + "stack, static, mapped or another allocator's memory";
const std::string kInteriorText =
    "interior pointer: the object begins at 0x12340000 and has 48 bytes";
const std::string kLate =
    " (found when it left the thread cache; MINITC_CHECK_FREE=1 finds it at the call)";
constexpr std::size_t kSites = 256;

const std::vector<Case> kCases = {
    {Verdict::kForeign, kForeignText.c_str(), kForeignText.c_str()},
    {Verdict::kInterior, kInteriorText.c_str(), kInteriorText.c_str()},
    {Verdict::kFreed, "double free: the object is already free",
     "stale pointer: the object is already free"},
    {Verdict::kStale, "stale pointer: its pages are free", "stale pointer: its pages are free"},
};

void report(BadPointers& bad, Call call, Verdict verdict) {
  const Finding finding{verdict, 0x12340000, 48};
  bad.report(call, reinterpret_cast<void*>(std::uintptr_t{0x1234abcd}), finding);
}

std::string last_words(Caller caller, Verdict verdict) {
  return test::ending_of([=] {
    BadPointers bad;
    report(bad, {caller}, verdict);
  });
}

// What `body` says with bad pointers ignored.
template <typename Body>
std::string said_by(Body&& body) {
  BadPointers bad;
  bad.init(/*ignore=*/true);
  return test::stderr_of([&] { body(bad); });
}

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
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
          test::death(std::string("free(0x1234abcd): ") + c.of_free + kLate));
  }
}

TEST_CASE("bad pointer: the longest message is not cut off") {
  const Finding finding{Verdict::kInterior, UINTPTR_MAX, SIZE_MAX};
  const std::string said = test::ending_of([=] {
    BadPointers bad;
    bad.report({Caller::kFreeLate}, reinterpret_cast<void*>(UINTPTR_MAX), finding);
  });
  CHECK(said.find("begins at 0xffffffffffffffff and has 18446744073709551615 bytes (found") !=
        std::string::npos);
  CHECK(said.substr(said.size() - 10) == "the call)\n");
}

TEST_CASE("bad pointer: a plugin is blamed for foreign pointers once one is expected") {
  const std::string text =
      "likely by libc's malloc for a plugin loaded with RTLD_DEEPBIND, which "
      "MINITC_KEEP_DEEPBIND=1 permits";
  CHECK(test::ending_of([] {
          BadPointers bad;
          bad.expect_deepbind();
          report(bad, {Caller::kFree}, Verdict::kForeign);
        }) == test::death("free(0x1234abcd): " + kForeign + text));
  CHECK(test::ending_of([] {
          BadPointers bad;
          bad.expect_deepbind();
          report(bad, {Caller::kFree}, Verdict::kStale);
        }) == test::death("free(0x1234abcd): stale pointer: its pages are free"));
}

// --- Ignored ------------------------------------------------------------------------------------

TEST_CASE("bad pointer, ignored: the words are the same, and the program goes on") {
  for (const Case& c : kCases) {
    const std::string text = said_by([&](BadPointers& bad) {
      report(bad, {Caller::kFree, 1000}, c.verdict);
      report(bad, {Caller::kUsableSize, 2000}, c.verdict);
      report(bad, {Caller::kFreeLate, 3}, c.verdict);
    });
    const std::string head = "libminitc: free(0x1234abcd): ";
    CHECK(text == head + c.of_free + "\nlibminitc: malloc_usable_size(0x1234abcd): " + c.of_other +
                      "\n" + head + c.of_free + kLate + "\n");
  }
}

TEST_CASE("bad pointer, ignored: each site speaks once, whatever it does") {
  const std::string text = said_by([](BadPointers& bad) {
    for (int round = 0; round < 1000; ++round) {
      for (const Case& c : kCases) {
        report(bad, {Caller::kFree, 0x401000}, c.verdict);
        report(bad, {Caller::kFree, 0x401005}, c.verdict);
        report(bad, {Caller::kRealloc, 0x7fff00401005}, c.verdict);
      }
    }
  });
  CHECK(lines(text) == 3);
}

TEST_CASE("bad pointer, ignored: late finds speak once per class and verdict") {
  const std::string text = said_by([](BadPointers& bad) {
    for (int round = 0; round < 3; ++round) {
      for (std::uintptr_t cls = 1; cls <= 20; ++cls) {
        for (const Case& c : kCases) report(bad, {Caller::kFreeLate, cls}, c.verdict);
      }
    }
  });
  CHECK(lines(text) == 20 * kCases.size());
}

TEST_CASE(
    "bad pointer, ignored: the table of sites fills up, says so once, and keeps what it has") {
  const std::uintptr_t step = GENERATE(1, 16, 4096, 1 << 20);
  CAPTURE(step);
  const std::string text = said_by([&](BadPointers& bad) {
    for (int round = 0; round < 2; ++round) {
      for (std::uintptr_t site = 1; site <= 2 * kSites; ++site) {
        report(bad, {Caller::kFree, 0x400000 + site * step}, Verdict::kStale);
      }
    }
  });
  CHECK(lines(text) == kSites + 1);
  const std::string full = "libminitc: bad pointers at more than 256 calls; no others are named\n";
  REQUIRE(text.size() > full.size());
  CHECK(text.substr(text.size() - full.size()) == full);
}

TEST_CASE("bad pointer, ignored: threads that find the same say it once") {
  const std::string text = said_by([](BadPointers& bad) {
    test::in_threads(8, [&](std::size_t) {
      for (std::uintptr_t site = 1; site <= kSites; ++site) {
        report(bad, {Caller::kFree, site << 12}, Verdict::kStale);
      }
    });
  });
  CHECK(lines(text) == kSites);
}

}  // namespace
}  // namespace minitc
