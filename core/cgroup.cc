#include "core/cgroup.h"

#include <limits.h>
#include <string.h>

#include <algorithm>

namespace minitc {
namespace {

// Where a hierarchy is mounted, and the name of the limit in each of its folders.
struct Hierarchy {
  const char* mount;
  const char* file;
};
constexpr Hierarchy kVersion1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"};
constexpr Hierarchy kVersion2{"/sys/fs/cgroup", "memory.max"};

// The buffers are static, since the stack may be short; the heap starts once, by one thread.
constexpr std::size_t kPathBytes = 1024;

// Without a limit version 2 says "max", and version 1 the largest number of whole pages.
std::size_t limit_in(const char* text) {
  std::size_t value = 0;
  if (*text < '0' || *text > '9') return kNoCgroupLimit;
  for (; *text >= '0' && *text <= '9'; ++text) {
    value = value * 10 + static_cast<std::size_t>(*text - '0');
  }
  return value >= PTRDIFF_MAX / 65536 * 65536 ? kNoCgroupLimit : value;
}

// Looks in the group's folder and in those above it, up to the mount: in a container the mount is
// the group's own, and the name may lead nowhere.
std::size_t least_limit(const Hierarchy& where, const char* group, std::size_t length,
                        decltype(&read_file) read) {
  static char path[kPathBytes];
  const std::size_t mount_length = strlen(where.mount);
  const std::size_t file_length = strlen(where.file) + 1;
  if (mount_length + length + 1 + file_length > sizeof(path)) return 0;
  memcpy(path, where.mount, mount_length);
  memcpy(path + mount_length, group, length);
  std::size_t least = 0;
  for (std::size_t end = mount_length + length;;) {
    if (path[end - 1] == '/') --end;
    path[end] = '/';
    memcpy(path + end + 1, where.file, file_length);
    char text[32];
    const std::ptrdiff_t got = read(path, text, sizeof(text) - 1);
    if (got > 0) {
      text[got] = '\0';
      least = least == 0 ? limit_in(text) : std::min(least, limit_in(text));
    }
    if (end <= mount_length) return least;
    while (path[--end] != '/') continue;
  }
}

}  // namespace

// Lines are "ID:CONTROLLERS:GROUP"; version 2's has no controllers. Where both exist the memory
// controller is in one of them.
std::size_t cgroup_memory_limit(decltype(&read_file) read) {
  static char text[4096];
  const std::ptrdiff_t got = read("/proc/self/cgroup", text, sizeof(text) - 1);
  if (got <= 0) return 0;
  text[got] = '\0';
  std::size_t limit = 0;
  for (const char* line = text; line != nullptr && *line != '\0';) {
    const char* const end = strchrnul(line, '\n');
    const char* const controllers = static_cast<const char*>(memchr(line, ':', end - line));
    const char* const group =
        controllers == nullptr
            ? nullptr
            : static_cast<const char*>(memchr(controllers + 1, ':', end - controllers - 1));
    if (group != nullptr) {
      const std::size_t length = static_cast<std::size_t>(end - group - 1);
      const bool is_version_2 = group == controllers + 1;
      const char* const memory = strstr(controllers, "memory");
      if (memory != nullptr && memory < group && !is_version_2) {
        return least_limit(kVersion1, group + 1, length, read);
      }
      if (is_version_2) limit = least_limit(kVersion2, group + 1, length, read);
    }
    line = *end == '\0' ? end : end + 1;
  }
  return limit;
}

}  // namespace minitc
