// The options: one table of rows, one parser.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/text.h"

namespace MINITC_HIDDEN minitc {

// Constant once the heap is ready. README says what each means.
struct Options {
  std::size_t stats = 0;
  std::size_t verbose = 0;
  std::size_t check_free = 0;
  std::size_t thread_cache_total = 32 * 1024 * 1024;
  std::size_t free_bound = 0;
  std::size_t soft_limit = 0;
  std::size_t hard_limit = 0;
  std::size_t release = kDecommit;
  std::size_t huge_pages = kAuto;
  std::size_t on_bad_free = kAbort;
  std::size_t keep_deepbind = 0;
  std::size_t stats_interval = 1000;
  const char* stats_file = nullptr;  // part of the environment, which the program may overwrite

  enum : std::size_t { kAbort, kIgnore };    // of on_bad_free
  enum : std::size_t { kDecommit, kOffer };  // of release
  enum : std::size_t { kNo, kYes, kAuto };   // of huge_pages
};

struct OptionRow {
  const char* name;  // of the environment variable
  std::size_t Options::*field;
  std::size_t min;
  std::size_t max;
  enum : std::uint8_t {
    kNumber,
    kBytes,  // may end in K, M or G
    kLimit,  // likewise, or "cgroup:N%", N from 1 to 100, of the limit of the control group
  } form = kNumber;
  const char* const* words = nullptr;  // names of the values from 0 to max; null: they are numbers
  // Instead of `field`: the value is an absolute path of at most `max` bytes.
  const char* Options::*path = nullptr;
};

inline constexpr std::size_t kOptionCount = 13;
extern const OptionRow kOptionRows[kOptionCount];

// Sets what `environment` (as environ; null: empty) says of options. Variables that begin with
// MINITC_ but name none, and values that are no number (no word) or out of bounds, are passed to
// `complain`, one line each, and change nothing.
void parse_options(const char* const* environment, Options& options, void (*complain)(const Text&));

// Appends " NAME=value" for each option.
void describe_options(const Options& options, Text& text);

}  // namespace minitc
