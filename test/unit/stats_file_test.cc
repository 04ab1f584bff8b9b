#include "core/stats_file.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::FakeOs;
using test::TestHeap;

// A folder of its own, and the options that name a file in it.
class Watched {
 public:
  explicit Watched(const char* name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "minitc-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    path_ = (folder_ / name).string();
    options.stats_file = path_.c_str();
  }
  ~Watched() { std::filesystem::remove_all(folder_); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  std::vector<std::string> lines_of(const std::string& name) const {
    std::ifstream file(folder_ / name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }

  Options options;

 private:
  std::filesystem::path folder_;
  std::string path_;
};

bool is_whole(const std::string& line, const std::string& event) {
  const std::string begin = "{\"format\":1,\"event\":\"" + event + "\",\"pid\":";
  return line.rfind(begin, 0) == 0 && line.size() > 2 && line.substr(line.size() - 2) == "]}" &&
         line.find("\"format\"", begin.size()) == std::string::npos;
}

TEST_CASE("stats file: without a path nothing is written") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  static StatsFile file;
  file.init(Options{});
  file.tick(*heap);
  CHECK_FALSE(file.write(*heap, "call"));
}

TEST_CASE("stats file: a line for each write, at the path as it was at the start") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  Watched watched("a%p-%p%");
  static StatsFile file;
  file.init(watched.options);
  watched.options.stats_file = nullptr;
  REQUIRE(file.write(*heap, "one"));
  void* const object = heap->allocate(100);
  REQUIRE(file.write(*heap, "two"));
  heap->deallocate(object);
  const std::string pid = std::to_string(getpid());
  const std::vector<std::string> lines = watched.lines_of("a" + pid + "-" + pid + "%");
  REQUIRE(lines.size() == 2);
  CHECK(is_whole(lines[0], "one"));
  CHECK(is_whole(lines[1], "two"));
  CHECK(lines[0].find("\"live\":0,") != std::string::npos);
  CHECK(lines[1].find("\"live\":112,") != std::string::npos);
}

TEST_CASE("stats file: what cannot be written is said") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  Watched watched("no/such/folder");
  static StatsFile file;
  file.init(watched.options);
  CHECK_FALSE(file.write(*heap, "call"));
  CHECK_FALSE(file.write(*heap, "call"));
}

TEST_CASE("stats file: of many threads one writes at a time, and lines are whole") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  Watched watched("lines");
  watched.options.stats_interval = 1;
  static StatsFile file;
  file.init(watched.options);
  std::atomic<std::size_t> written{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 200; ++n) {
        heap->deallocate(heap->allocate(static_cast<std::size_t>(n)));
        file.tick(*heap);
        if (file.write(*heap, "call")) ++written;
      }
      heap->retire_cache();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<std::string> lines = watched.lines_of("lines");
  std::size_t calls = 0;
  for (const std::string& line : lines) {
    const bool is_call = is_whole(line, "call");
    if (!is_call) REQUIRE(is_whole(line, "interval"));
    calls += is_call ? 1 : 0;
  }
  CHECK(calls == written);
  CHECK(calls >= 1);
  CHECK(lines.size() > calls);
}

TEST_CASE("stats file: the last line waits for another thread's, and none follows") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  const Watched watched("lines");
  static StatsFile file;
  file.init(watched.options);
  std::atomic<bool> started{false};
  std::thread other([&] {
    while (file.write(*heap, "call")) started.store(true);
    heap->retire_cache();
  });
  while (!started.load()) continue;
  file.write_last(*heap);
  other.join();
  CHECK_FALSE(file.write(*heap, "call"));
  const std::vector<std::string> lines = watched.lines_of("lines");
  CHECK(is_whole(lines.back(), "exit"));
  file.after_fork_in_child();
  CHECK(file.write(*heap, "call"));
}

}  // namespace
}  // namespace minitc
