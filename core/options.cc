#include "core/options.h"

#include <string.h>

#include "core/cgroup.h"
#include "core/config.h"
#include "core/os.h"

namespace minitc {
namespace {

const char* const kOnBadFree[] = {"abort", "ignore"};
const char* const kRelease[] = {"dontneed", "free"};
const char* const kHugePages[] = {"0", "1", "auto"};
constexpr std::size_t kMostBytes = std::size_t{1} << 46;

}  // namespace

// What each does is said in README.
const OptionRow kOptionRows[kOptionCount] = {
    {"MINITC_STATS", &Options::stats, 0, 1},
    {"MINITC_VERBOSE", &Options::verbose, 0, 1},
    {"MINITC_CHECK_FREE", &Options::check_free, 0, 1},
    {"MINITC_THREAD_CACHE_TOTAL", &Options::thread_cache_total, 0, std::size_t{1} << 40,
     OptionRow::kBytes},
    {"MINITC_FREE_BOUND", &Options::free_bound, 0, kMostBytes, OptionRow::kBytes},
    {"MINITC_SOFT_LIMIT", &Options::soft_limit, 0, kMostBytes, OptionRow::kLimit},
    {"MINITC_HARD_LIMIT", &Options::hard_limit, 0, kMostBytes, OptionRow::kLimit},
    {"MINITC_RELEASE", &Options::release, Options::kDecommit, Options::kOffer, OptionRow::kNumber,
     kRelease},
    {"MINITC_HUGEPAGES", &Options::huge_pages, Options::kNo, Options::kAuto, OptionRow::kNumber,
     kHugePages},
    {"MINITC_ON_BAD_FREE", &Options::on_bad_free, Options::kAbort, Options::kIgnore,
     OptionRow::kNumber, kOnBadFree},
    {"MINITC_KEEP_DEEPBIND", &Options::keep_deepbind, 0, 1},
    {"MINITC_STATS_INTERVAL", &Options::stats_interval, 1, 86'400'000},
    {"MINITC_STATS_FILE", nullptr, 1, kMaxStatsPath, OptionRow::kNumber, nullptr,
     &Options::stats_file},
};

namespace {

constexpr char kPrefix[] = "MINITC_";
constexpr char kShare[] = "cgroup:";

// The number that `s` is, all of it; false if it is none or overflows.
bool parse_number(const char* s, bool in_bytes, std::size_t& value) {
  s = parse_digits(s, value);
  if (s == nullptr) return false;
  if (*s == '\0') return true;
  const char* const units = "KMG";
  const char* const unit = strchr(units, *s);
  if (!in_bytes || unit == nullptr || s[1] != '\0') return false;
  const std::size_t factor = std::size_t{1} << (10 * (unit - units + 1));
  return !__builtin_mul_overflow(value, factor, &value);
}

// The bytes that "cgroup:N%" stands for; else what is wrong with it.
const char* parse_share(const char* s, std::size_t& value) {
  std::size_t percent;
  s = parse_digits(s, percent);
  if (s == nullptr || strcmp(s, "%") != 0 || percent < 1 || percent > 100) {
    return ": not cgroup:1% to cgroup:100%, ignored";
  }
  const std::size_t limit = cgroup_memory_limit(read_file);
  if (limit == 0) return ": the control group's memory limit can't be read, ignored";
  if (limit == kNoCgroupLimit) return ": the control group has no memory limit, ignored";
  value = limit / 100 * percent;
  return nullptr;
}

// The number of the word that `s` is; false if it is none.
bool parse_word(const char* s, const OptionRow& row, std::size_t& value) {
  for (value = 0; value <= row.max; ++value) {
    if (strcmp(s, row.words[value]) == 0) return true;
  }
  return false;
}

// Sets the path that `s` is, or says why it is none.
const char* refuse_path(const char* s, const OptionRow& row, Options& options) {
  if (*s != '/') return ": not an absolute path, ignored";
  if (strlen(s) > row.max) return ": too long a path, ignored";
  options.*row.path = s;
  return nullptr;
}

// Sets the field that `text` is the value for; else appends what is wrong with it to `line`.
bool set_field(const char* text, const OptionRow& row, Options& options, Text& line) {
  std::size_t value = 0;
  const char* error = nullptr;
  if (row.words != nullptr) {
    if (!parse_word(text, row, value)) {
      line << ": not one of " << row.words[0];
      for (std::size_t i = 1; i <= row.max; ++i) line << '|' << row.words[i];
      error = ", ignored";
    }
  } else if (row.form == OptionRow::kLimit && strncmp(text, kShare, strlen(kShare)) == 0) {
    error = parse_share(text + strlen(kShare), value);
  } else if (!parse_number(text, row.form != OptionRow::kNumber, value)) {
    error = ": not a number, ignored";
  }
  if (error != nullptr) {
    line << error;
    return false;
  }
  if (value < row.min || value > row.max) {
    line << ": out of range " << row.min << ".." << row.max << ", ignored";
    return false;
  }
  options.*row.field = value;
  return true;
}

void parse_one(const char* variable, Options& options, void (*complain)(const Text&)) {
  const char* const equals = strchr(variable, '=');
  if (equals == nullptr) return;
  const std::size_t name_length = static_cast<std::size_t>(equals - variable);
  Text line;
  for (const OptionRow& row : kOptionRows) {
    if (strlen(row.name) != name_length || strncmp(variable, row.name, name_length) != 0) continue;
    if (row.path != nullptr) {
      const char* const error = refuse_path(equals + 1, row, options);
      if (error != nullptr) complain(line << row.name << error);
    } else if (!set_field(equals + 1, row, options, line << variable)) {
      complain(line);
    }
    return;
  }
  for (std::size_t i = 0; i < name_length; ++i) line << variable[i];
  complain(line << ": unknown option, ignored");
}

}  // namespace

void parse_options(const char* const* environment, Options& options,
                   void (*complain)(const Text&)) {
  if (environment == nullptr) return;
  for (; *environment != nullptr; ++environment) {
    if (strncmp(*environment, kPrefix, sizeof(kPrefix) - 1) == 0) {
      parse_one(*environment, options, complain);
    }
  }
}

void describe_options(const Options& options, Text& text) {
  for (const OptionRow& row : kOptionRows) {
    text << ' ' << row.name << '=';
    if (row.path != nullptr) {
      if (options.*row.path != nullptr) text << options.*row.path;
      continue;
    }
    const std::size_t value = options.*row.field;
    row.words == nullptr ? text << value : text << row.words[value];
  }
}

}  // namespace minitc
