#include "core/options.h"

#include <string.h>

#include "core/config.h"

namespace minitc {
namespace {

const char* const kOnBadFree[] = {"abort", "ignore"};

}  // namespace

const OptionRow kOptionRows[kOptionCount] = {
    {"MINITC_STATS", &Options::stats, 0, 1, false, "print a report to stderr at exit"},
    {"MINITC_VERBOSE", &Options::verbose, 0, 1, false,
     "print the version and the options in effect to stderr at start"},
    {"MINITC_CHECK_FREE", &Options::check_free, 0, 1, false,
     "no thread caches: every bad free is found at the call (slow)"},
    {"MINITC_THREAD_CACHE_TOTAL", &Options::thread_cache_total, 0, std::size_t{1} << 40, true,
     "most bytes that all threads together may cache"},
    {"MINITC_FREE_BOUND", &Options::free_bound, 0, std::size_t{1} << 46, true,
     "free bytes that stay committed; 0: 32M or an eighth of the live heap, whichever is more"},
    {"MINITC_ON_BAD_FREE", &Options::on_bad_free, Options::kAbort, Options::kIgnore, false,
     "after the message about a bad pointer: abort, or ignore the call and go on", kOnBadFree},
    {"MINITC_KEEP_DEEPBIND", &Options::keep_deepbind, 0, 1, false,
     "dlopen heeds RTLD_DEEPBIND: plugins may then use libc's malloc"},
    {"MINITC_STATS_INTERVAL", &Options::stats_interval, 1, 86'400'000, false,
     "milliseconds between two lines of MINITC_STATS_FILE, at least"},
    {"MINITC_STATS_FILE", nullptr, 1, kMaxStatsPath, false,
     "append lines of JSON to this file; %p stands for the process id", nullptr,
     &Options::stats_file},
};

namespace {

constexpr char kPrefix[] = "MINITC_";

// The number that `s` is, all of it; false if it is none or overflows.
bool parse_number(const char* s, bool in_bytes, std::size_t& value) {
  value = 0;
  const char* const digits = s;
  for (; *s >= '0' && *s <= '9'; ++s) {
    if (__builtin_mul_overflow(value, std::size_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<std::size_t>(*s - '0'), &value)) {
      return false;
    }
  }
  if (s == digits) return false;
  if (*s == '\0') return true;
  const char* const units = "KMG";
  const char* const unit = strchr(units, *s);
  if (!in_bytes || unit == nullptr || s[1] != '\0') return false;
  const std::size_t factor = std::size_t{1} << (10 * (unit - units + 1));
  return !__builtin_mul_overflow(value, factor, &value);
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

void parse_one(const char* variable, Options& options, void (*complain)(const Text&)) {
  const char* const equals = strchr(variable, '=');
  if (equals == nullptr) return;
  const std::size_t name_length = static_cast<std::size_t>(equals - variable);
  Text text;
  for (const OptionRow& row : kOptionRows) {
    if (strlen(row.name) != name_length || strncmp(variable, row.name, name_length) != 0) continue;
    std::size_t value;
    text << variable;
    const bool is_word = row.words != nullptr;
    if (row.path != nullptr) {
      const char* const refusal = refuse_path(equals + 1, row, options);
      if (refusal == nullptr) return;
      text = Text() << row.name << refusal;
    } else if (is_word && !parse_word(equals + 1, row, value)) {
      text << ": not one of " << row.words[0];
      for (std::size_t i = 1; i <= row.max; ++i) text << '|' << row.words[i];
      text << ", ignored";
    } else if (!is_word && !parse_number(equals + 1, row.in_bytes, value)) {
      text << ": not a number, ignored";
    } else if (value < row.min || value > row.max) {
      text << ": out of range " << row.min << ".." << row.max << ", ignored";
    } else {
      options.*row.field = value;
      return;
    }
    return complain(text);
  }
  for (std::size_t i = 0; i < name_length; ++i) text << variable[i];
  complain(text << ": unknown option, ignored");
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
