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
  std::size_t value;
  const bool is_limit = parse_digits(text, value) != nullptr && value < PTRDIFF_MAX / 65536 * 65536;
  return is_limit ? value : kNoCgroupLimit;
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

// Behind the next `c` in the line, or the line's end.
const char* behind(const char* s, char c) {
  while (*s != c && *s != '\n' && *s != '\0') ++s;
  return *s == c ? s + 1 : s;
}

// Whether the list that ends at a colon, "cpu,memory:", has the memory controller.
bool has_memory(const char* controllers) {
  constexpr char kName[] = "memory";
  constexpr std::size_t kLength = sizeof(kName) - 1;
  for (const char* word = controllers; *word != ':' && *word != '\n' && *word != '\0'; ++word) {
    const bool begins = word == controllers || word[-1] == ',';
    if (begins && strncmp(word, kName, kLength) == 0 &&
        (word[kLength] == ',' || word[kLength] == ':')) {
      return true;
    }
  }
  return false;
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
  for (const char* line = text; *line != '\0'; line = behind(line, '\n')) {
    const char* const controllers = behind(line, ':');
    const char* const group = behind(controllers, ':');
    if (*group != '/') continue;
    const char* end = group;
    while (*end != '\n' && *end != '\0') ++end;
    const std::size_t length = static_cast<std::size_t>(end - group);
    if (has_memory(controllers)) return least_limit(kVersion1, group, length, read);
    if (*controllers == ':') limit = least_limit(kVersion2, group, length, read);
  }
  return limit;
}

}  // namespace minitc
