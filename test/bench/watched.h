// What the programs of the memory benchmark share: objects of mixed sizes, and what they show to
// whoever watches from outside.
#pragma once
#include <atomic>
#include <chrono>

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

namespace bench {

// How many bytes a program has allocated and not freed, and how far it has come. Both lie in a file
// that is mapped: the watcher reads them at the very moment at which it reads the RSS, and to show
// them takes no call. Without --show=FILE nobody watches.
class Watched {
 public:
  // --report=FILE: where write_report() writes.
  explicit Watched(Options& options) : report_path_(options.text("report")) {
    const char* path = options.text("show");
    if (path == nullptr) {
      return;
    }
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    void* page = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(page != MAP_FAILED, "--show: the file cannot be mapped");
    close(fd);
    page_ = static_cast<Page*>(page);
  }

  void add(std::int64_t bytes) { page_->live.fetch_add(bytes, std::memory_order_relaxed); }
  // Each program counts its stages from 1; in the last one, kEnd, it only clears up.
  static constexpr std::uint64_t kEnd = 100;
  void reach(std::uint64_t stage) { page_->stage.store(stage, std::memory_order_release); }

  // What the malloc says of itself, as the C library's malloc_info() would: it may say nothing.
  void write_report() const {
    if (report_path_ == nullptr) {
      return;
    }
    std::FILE* file = std::fopen(report_path_, "we");
    check(file != nullptr, "--report: the file cannot be written");
    malloc_info(0, file);
    std::fclose(file);
  }

 private:
  struct Page {
    std::atomic<std::int64_t> live;
    std::atomic<std::uint64_t> stage;
  };

  Page unwatched_{};
  Page* page_ = &unwatched_;
  const char* report_path_;
};

// An object that knows its size, and can be in a list, so that no program needs a table of its
// objects, which would be memory too.
struct Object {
  Object* next;
  std::uint32_t size;
  std::uint32_t check;
};

// Every page of it is written.
inline Object* make(std::uint32_t size) {
  auto* object = static_cast<Object*>(std::malloc(size));
  check(object != nullptr, "out of memory");
  std::memset(static_cast<void*>(object), static_cast<int>(size & 0xff), size);
  *object = {nullptr, size, ~size};
  return object;
}

// Gives the object's size.
inline std::uint32_t drop(Object* object) {
  const std::uint32_t size = object->size;
  const auto* bytes = reinterpret_cast<unsigned char*>(object);
  check(object->check == ~size, "an object does not hold what was written");
  check(size == sizeof(Object) || bytes[size - 1] == (size & 0xff),
        "the end of an object does not hold what was written");
  std::free(object);
  return size;
}

class List {
 public:
  void push(Object* object) {
    object->next = first_;
    first_ = object;
  }
  Object* pop() {
    Object* object = first_;
    if (object != nullptr) {
      first_ = object->next;
    }
    return object;
  }

 private:
  Object* first_ = nullptr;
};

// Sizes as servers have them: 98 % are 16 bytes to 4 KiB, smaller ones more often; 2 % are up to 64
// KiB, and one in 2,000 is up to 1 MiB. The mean is 1.4 KiB; a third of the bytes is in objects
// above 4 KiB.
inline std::uint32_t mixed_size(Random& random) {
  const std::uint32_t kind = random.below(2000);
  const std::uint32_t least = kind == 0   ? 65536u << random.below(4)
                              : kind < 41 ? 4096u << random.below(4)
                                          : 16u << random.below(8);
  return least + random.below(least);
}

inline void sleep_ms(std::uint64_t ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

}  // namespace bench
