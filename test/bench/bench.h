// What the benchmark programs share: options, random numbers, threads, checks. Nothing here knows
// which malloc is in use, and nothing here allocates while a program does its work.
//
// A program's work depends on its options alone, so every malloc gets the same calls in every run.
// It ends with status 0 and lines NAME=VALUE on stdout, or with status 1 or 2 and a reason on
// stderr. The value of "checksum" depends on the options alone too.
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace bench {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
  std::_Exit(1);
}

inline void check(bool holds, const char* what) {
  if (!holds) [[unlikely]] {
    fail(what);
  }
}

// Options are --name=VALUE. --scale=F multiplies those that are asked for with scaled().
class Options {
 public:
  Options(int argc, char** argv) : argc_(argc), argv_(argv) { scale_ = number("scale", 1.0); }

  std::uint64_t whole(const char* name, std::uint64_t otherwise) {
    const char* text = find(name);
    if (text == nullptr) {
      return otherwise;
    }
    char* end = nullptr;
    const std::uint64_t value = std::strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0) {
      refuse(name, "not a whole number");
    }
    return value;
  }

  // An amount of work. It is never scaled to nothing.
  std::uint64_t scaled(const char* name, std::uint64_t otherwise) {
    const auto amount = static_cast<double>(whole(name, otherwise));
    return std::max(static_cast<std::uint64_t>(amount * scale_), std::uint64_t{1});
  }

  std::size_t threads(std::uint64_t otherwise) {
    const std::uint64_t value = whole("threads", otherwise);
    if (value == 0 || value > 4096) {
      refuse("threads", "out of range 1..4096");
    }
    return value;
  }

  // One of several words, by its place in the list.
  template <std::size_t kCount>
  std::size_t word(const char* name, const char* const (&words)[kCount]) {
    const char* text = find(name);
    for (std::size_t i = 0; text != nullptr && i < kCount; i++) {
      if (std::strcmp(text, words[i]) == 0) {
        return i;
      }
    }
    if (text != nullptr) {
      refuse(name, "no such word");
    }
    return 0;
  }

  // A path, or null.
  const char* text(const char* name) { return find(name); }

  // To be called when every option has been asked for: what is left over is a mistake.
  void finish() const {
    for (int i = 1; i < argc_; i++) {
      if (i >= kMost || (used_ >> i & 1) == 0) {
        refuse(argv_[i], "unknown option");
      }
    }
  }

 private:
  static constexpr int kMost = 64;

  const char* find(const char* name) {
    const std::size_t length = std::strlen(name);
    for (int i = 1; i < argc_ && i < kMost; i++) {
      const char* word = argv_[i];
      if (std::strncmp(word, "--", 2) == 0 && std::strncmp(word + 2, name, length) == 0 &&
          word[2 + length] == '=') {
        used_ |= std::uint64_t{1} << i;
        return word + 3 + length;
      }
    }
    return nullptr;
  }

  double number(const char* name, double otherwise) {
    const char* text = find(name);
    if (text == nullptr) {
      return otherwise;
    }
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || *end != 0 || !(value > 0 && value <= 1000)) {
      refuse(name, "not a number above 0 and up to 1000");
    }
    return value;
  }

  [[noreturn]] static void refuse(const char* name, const char* what) {
    std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, name, what);
    std::_Exit(2);
  }

  int argc_;
  char** argv_;
  std::uint64_t used_ = 0;
  double scale_ = 1;
};

// A linear congruential generator. Its upper half is random enough for sizes and places.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) { next(); }

  std::uint32_t next() {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  // 0 to bound - 1.
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>((std::uint64_t{next()} * bound) >> 32);
  }
  // Both ends are possible.
  std::uint32_t between(std::uint32_t least, std::uint32_t most) {
    return least + below(most - least + 1);
  }

 private:
  std::uint64_t state_;
};

// Runs work(0) … work(count - 1), each in a thread of its own, to the end. One alone runs in the
// calling thread: a program of one thread has never started another, which some mallocs notice.
template <typename Work>
void run_threads(std::size_t count, Work work) {
  if (count == 1) {
    work(std::size_t{0});
    return;
  }
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (std::size_t i = 0; i < count; i++) {
    threads.emplace_back([&work, i] { work(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

inline void report(const char* name, std::uint64_t value) {
  std::printf("%s=%llu\n", name, static_cast<unsigned long long>(value));
}

}  // namespace bench
