#include "core/options.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "core/cgroup.h"
#include "core/config.h"
#include "core/os.h"

namespace minitc {
namespace {

std::vector<std::string>& complaints() {
  static std::vector<std::string> lines;
  return lines;
}

void complain(const Text& text) { complaints().emplace_back(text.data(), text.size()); }

Options parse(std::vector<const char*> environment) {
  environment.push_back(nullptr);
  complaints().clear();
  Options options;
  parse_options(environment.data(), options, complain);
  return options;
}

// What is said of an environment of this one variable, which must leave the options as they are.
std::string complaint_of(const std::string& variable) {
  const Options options = parse({variable.c_str()});
  const Options defaults;
  for (const OptionRow& row : kOptionRows) {
    if (row.path != nullptr) {
      CHECK(options.*row.path == defaults.*row.path);
    } else {
      CHECK(options.*row.field == defaults.*row.field);
    }
  }
  REQUIRE(complaints().size() == 1);
  return complaints()[0];
}

TEST_CASE("options: the table has a row for each field, and each is explained") {
  Options options;
  std::size_t mark = 1000;
  for (const OptionRow& row : kOptionRows) {
    if (row.path == nullptr) options.*row.field = ++mark;
  }
  // Had two rows shared a field, the second would have overwritten the first.
  mark = 1000;
  for (const OptionRow& row : kOptionRows) {
    if (row.path == nullptr) CHECK(options.*row.field == ++mark);
    CHECK(std::string(row.name).rfind("MINITC_", 0) == 0);
    CHECK(row.min < row.max);
    const Options defaults;
    if (row.path != nullptr) {
      CHECK(defaults.*row.path == nullptr);
      continue;
    }
    CHECK(defaults.*row.field >= row.min);
    CHECK(defaults.*row.field <= row.max);
  }
  CHECK(sizeof(Options) == kOptionCount * sizeof(std::size_t));
}

TEST_CASE("options: no environment, an empty one and other programs' variables change nothing") {
  complaints().clear();
  Options options;
  parse_options(nullptr, options, complain);
  parse({});
  parse({"PATH=/bin", "minitc_stats=1", "XMINITC_STATS=1", "MINITC", "MINITC=1", "=1", ""});
  CHECK(complaints().empty());
}

TEST_CASE("options: every row of numbers takes its bounds and refuses what is beyond") {
  for (const OptionRow& row : kOptionRows) {
    if (row.words != nullptr || row.path != nullptr) continue;
    CAPTURE(row.name);
    const std::string name = row.name;
    for (const std::size_t value : {row.min, row.min + 1, row.max}) {
      const std::string variable = name + "=" + std::to_string(value);
      CHECK(parse({variable.c_str()}).*row.field == value);
      CHECK(complaints().empty());
    }
    const std::string beyond = name + "=" + std::to_string(row.max + 1);
    CHECK(complaint_of(beyond) == beyond + ": out of range " + std::to_string(row.min) + ".." +
                                      std::to_string(row.max) + ", ignored");
  }
}

TEST_CASE("options: a row of words takes each of them and nothing else") {
  for (const OptionRow& row : kOptionRows) {
    if (row.words == nullptr) continue;
    CAPTURE(row.name);
    const std::string name = row.name;
    CHECK(row.min == 0);
    for (std::size_t value = 0; value <= row.max; ++value) {
      const std::string variable = name + "=" + row.words[value];
      CHECK(parse({variable.c_str()}).*row.field == value);
      CHECK(complaints().empty());
    }
  }
  CHECK(parse({"MINITC_ON_BAD_FREE=abort"}).on_bad_free == Options::kAbort);
  CHECK(parse({"MINITC_ON_BAD_FREE=ignore"}).on_bad_free == Options::kIgnore);
  for (const char* const value :
       {"", "0", "1", "Ignore", "ignore ", "ignor", "ignored", "a", "|", "abort|ignore", "none"}) {
    const std::string variable = std::string("MINITC_ON_BAD_FREE=") + value;
    CHECK(complaint_of(variable) == variable + ": not one of abort|ignore, ignored");
  }
}

TEST_CASE("options: a path is taken as it stands, if it is absolute and not too long") {
  const std::string longest = "/" + std::string(kMaxStatsPath - 1, 'x');
  for (const std::string& path : {std::string("/"), std::string("/a b/%p"), longest}) {
    const std::string variable = "MINITC_STATS_FILE=" + path;
    CHECK(parse({variable.c_str()}).stats_file == path);
    CHECK(complaints().empty());
  }
  for (const char* const value : {"", "stats", "./stats", " /stats", "%p"}) {
    const std::string variable = std::string("MINITC_STATS_FILE=") + value;
    CHECK(complaint_of(variable) == "MINITC_STATS_FILE: not an absolute path, ignored");
  }
  CHECK(complaint_of("MINITC_STATS_FILE=" + longest + "x") ==
        "MINITC_STATS_FILE: too long a path, ignored");
}

TEST_CASE("options: a size may end in K, M or G, another number may not") {
  CHECK(parse({"MINITC_FREE_BOUND=3K"}).free_bound == 3 * 1024);
  CHECK(parse({"MINITC_FREE_BOUND=64M"}).free_bound == 64 * 1024 * 1024);
  CHECK(parse({"MINITC_FREE_BOUND=5G"}).free_bound == std::size_t{5} << 30);
  CHECK(parse({"MINITC_THREAD_CACHE_TOTAL=1K"}).thread_cache_total == 1024);
  CHECK(parse({"MINITC_FREE_BOUND=65536G"}).free_bound == std::size_t{1} << 46);
  CHECK(complaints().empty());
  CHECK(complaint_of("MINITC_FREE_BOUND=65537G") ==
        "MINITC_FREE_BOUND=65537G: out of range 0..70368744177664, ignored");
  CHECK(complaint_of("MINITC_STATS=1K") == "MINITC_STATS=1K: not a number, ignored");
}

TEST_CASE("options: zero may be written with a unit") {
  CHECK(parse({"MINITC_THREAD_CACHE_TOTAL=0K"}).thread_cache_total == 0);
  CHECK(complaints().empty());
}

TEST_CASE("options: what is not a number is named and ignored") {
  const std::string name = GENERATE(as<std::string>{}, "MINITC_STATS", "MINITC_FREE_BOUND");
  for (const char* const value :
       {"", "abc", "-1", "+1", " 1", "1 ", "1.5", "0x10", "1x", "K", "KK", "1KK", "1k", "1KB",
        "18446744073709551616", "99999999999999999999999", "17179869184G",
        "18446744073709551615K"}) {
    const std::string variable = name + "=" + value;
    CHECK(complaint_of(variable) == variable + ": not a number, ignored");
  }
}

TEST_CASE("options: the largest number there is can be read") {
  CHECK(complaint_of("MINITC_STATS=18446744073709551615") ==
        "MINITC_STATS=18446744073709551615: out of range 0..1, ignored");
  CHECK(complaint_of("MINITC_FREE_BOUND=17179869183G") ==
        "MINITC_FREE_BOUND=17179869183G: out of range 0..70368744177664, ignored");
}

TEST_CASE("options: unknown names are named and ignored") {
  CHECK(complaint_of("MINITC_FOO=1") == "MINITC_FOO: unknown option, ignored");
  CHECK(complaint_of("MINITC_=1") == "MINITC_: unknown option, ignored");
  CHECK(complaint_of("MINITC_STAT=1") == "MINITC_STAT: unknown option, ignored");
  CHECK(complaint_of("MINITC_STATSX=1") == "MINITC_STATSX: unknown option, ignored");
  CHECK(complaint_of("MINITC_stats=1") == "MINITC_stats: unknown option, ignored");
}

TEST_CASE("options: a bad variable does not keep the others from being read") {
  const Options options = parse({"MINITC_STATS=1", "MINITC_FOO=1", "MINITC_VERBOSE=2", "HOME=/",
                                 "MINITC_CHECK_FREE=1", "MINITC_FREE_BOUND=1M"});
  CHECK(options.stats == 1);
  CHECK(options.verbose == 0);
  CHECK(options.check_free == 1);
  CHECK(options.free_bound == 1024 * 1024);
  CHECK(complaints() == std::vector<std::string>{"MINITC_FOO: unknown option, ignored",
                                                 "MINITC_VERBOSE=2: out of range 0..1, ignored"});
}

TEST_CASE("options: the description names every option in effect") {
  Options options;
  options.stats = 1;
  options.free_bound = 4096;
  options.on_bad_free = Options::kIgnore;
  Text text;
  describe_options(options, text);
  CHECK(std::string(text.data(), text.size()) ==
        " MINITC_STATS=1 MINITC_VERBOSE=0 MINITC_CHECK_FREE=0 MINITC_THREAD_CACHE_TOTAL=33554432"
        " MINITC_FREE_BOUND=4096 MINITC_SOFT_LIMIT=0 MINITC_HARD_LIMIT=0 MINITC_RELEASE=dontneed"
        " MINITC_HUGEPAGES=auto MINITC_ON_BAD_FREE=ignore MINITC_KEEP_DEEPBIND=0"
        " MINITC_STATS_INTERVAL=1000 MINITC_STATS_FILE=");
  options.stats_file = "/tmp/x";
  Text with_path;
  describe_options(options, with_path);
  CHECK(std::string(with_path.data(), with_path.size()).find(" MINITC_STATS_FILE=/tmp/x") !=
        std::string::npos);
}

TEST_CASE("options: a limit may be a share of the control group's, within 1 % and 100 %") {
  CHECK(parse({"MINITC_HARD_LIMIT=3G"}).hard_limit == std::size_t{3} << 30);
  CHECK(complaints().empty());
  for (const char* const value : {"cgroup:", "cgroup:%", "cgroup:0%", "cgroup:101%", "cgroup:90",
                                  "cgroup:90%%", "cgroup:-1%", "cgroup: 90%"}) {
    const std::string variable = std::string("MINITC_SOFT_LIMIT=") + value;
    CHECK(complaint_of(variable) == variable + ": not cgroup:1% to cgroup:100%, ignored");
  }
  CHECK(complaint_of("MINITC_SOFT_LIMIT=cgroup") ==
        "MINITC_SOFT_LIMIT=cgroup: not a number, ignored");
  CHECK(complaint_of("MINITC_FREE_BOUND=cgroup:90%") ==
        "MINITC_FREE_BOUND=cgroup:90%: not a number, ignored");

  // Whatever group the test runs in.
  const std::size_t limit = cgroup_memory_limit(read_file);
  const std::string half = "MINITC_HARD_LIMIT=cgroup:50%";
  if (limit == 0) {
    CHECK(complaint_of(half) == half + ": the control group's memory limit can't be read, ignored");
  } else if (limit == kNoCgroupLimit) {
    CHECK(complaint_of(half) == half + ": the control group has no memory limit, ignored");
  } else {
    CHECK(parse({half.c_str()}).hard_limit == limit / 100 * 50);
    CHECK(complaints().empty());
  }
}

}  // namespace
}  // namespace minitc
