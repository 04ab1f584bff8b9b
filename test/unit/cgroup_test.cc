#include "core/cgroup.h"

#include <string.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <string>

namespace minitc {
namespace {

std::map<std::string, std::string>& files() {
  static std::map<std::string, std::string> contents;
  return contents;
}

std::ptrdiff_t read_fake(const char* path, char* buffer, std::size_t bytes) {
  const auto file = files().find(path);
  if (file == files().end()) return -1;
  const std::size_t length = std::min(bytes, file->second.size());
  memcpy(buffer, file->second.data(), length);
  return static_cast<std::ptrdiff_t>(length);
}

std::size_t limit_of(std::map<std::string, std::string> contents) {
  files() = std::move(contents);
  return cgroup_memory_limit(read_fake);
}

constexpr std::size_t kMiB = 1024 * 1024;

TEST_CASE("cgroup: version 2, in the group's folder or in one above it, the least counts") {
  const std::string self = "0::/user.slice/app.service\n";
  CHECK(limit_of({{"/proc/self/cgroup", self},
                  {"/sys/fs/cgroup/user.slice/app.service/memory.max", "104857600\n"}}) ==
        100 * kMiB);
  CHECK(limit_of({{"/proc/self/cgroup", self},
                  {"/sys/fs/cgroup/user.slice/memory.max", "52428800\n"},
                  {"/sys/fs/cgroup/user.slice/app.service/memory.max", "104857600\n"}}) ==
        50 * kMiB);
  CHECK(limit_of({{"/proc/self/cgroup", self},
                  {"/sys/fs/cgroup/user.slice/memory.max", "max\n"},
                  {"/sys/fs/cgroup/user.slice/app.service/memory.max", "104857600\n"}}) ==
        100 * kMiB);
}

TEST_CASE("cgroup: version 1, by the line that has the memory controller") {
  CHECK(limit_of({{"/proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/b/c\n0::/d\n"},
                  {"/sys/fs/cgroup/memory.max", "1\n"},
                  {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"},
                  {"/sys/fs/cgroup/memory/b/memory.limit_in_bytes", "209715200\n"},
                  {"/sys/fs/cgroup/memory/b/c/memory.limit_in_bytes", "9223372036854771712\n"}}) ==
        200 * kMiB);
}

TEST_CASE("cgroup: in a container the mount is the group's own") {
  CHECK(limit_of({{"/proc/self/cgroup", "0::/\n"}, {"/sys/fs/cgroup/memory.max", "104857600\n"}}) ==
        100 * kMiB);
  CHECK(limit_of({{"/proc/self/cgroup", "4:memory:/docker/0123456789\n"},
                  {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n"}}) == 100 * kMiB);
}

TEST_CASE("cgroup: no limit is told from no file") {
  CHECK(limit_of({{"/proc/self/cgroup", "0::/a\n"}, {"/sys/fs/cgroup/a/memory.max", "max\n"}}) ==
        kNoCgroupLimit);
  CHECK(limit_of({{"/proc/self/cgroup", "4:memory:/\n"},
                  {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"}}) ==
        kNoCgroupLimit);
  CHECK(limit_of({}) == 0);
  CHECK(limit_of({{"/proc/self/cgroup", "0::/a\n"}}) == 0);
  CHECK(limit_of({{"/proc/self/cgroup", "4:memory:/a\n"}}) == 0);
}

TEST_CASE("cgroup: what is no line of the kernel's is passed over") {
  for (const std::string self :
       {"", "\n", "0", "0:", "0::", ":", "::", "garbage\n\n:\n", "4:memory\n", "4:memory:\n"}) {
    CAPTURE(self);
    CHECK(limit_of({{"/proc/self/cgroup", self}}) == 0);
  }
  const std::string deep = "0::" + std::string(2000, 'a') + "\n";
  CHECK(limit_of({{"/proc/self/cgroup", deep}}) == 0);
  CHECK(limit_of({{"/proc/self/cgroup", "nonsense\n0::/a"},
                  {"/sys/fs/cgroup/a/memory.max", "104857600"}}) == 100 * kMiB);
}

}  // namespace
}  // namespace minitc
