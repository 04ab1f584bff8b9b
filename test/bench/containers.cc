// What C++ programs allocate: a map of strings, a hash table, strings that grow, vectors of
// vectors, lists, shared pointers. Their deletes say the size.
//
//   containers [--threads=1] [--keys=3000] [--count=steps over all threads]
#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "bench.h"

namespace {

std::string text_of(std::uint32_t number, std::size_t length) {
  std::string text = std::to_string(number);
  while (text.size() < length) {
    text += "abcdefgh";
  }
  return text;
}

// What a program keeps by name.
struct Record {
  std::string title;
  std::vector<std::uint32_t> numbers;
  std::list<std::string> notes;
};

class Store {
 public:
  void step(std::uint32_t key, std::uint32_t choice, std::uint32_t value) {
    const std::string name = text_of(key, 12 + key % 40);
    std::shared_ptr<Record>& record = by_name_[name];
    if (record == nullptr) {
      record = std::make_shared<Record>();
      by_key_[key] = record;
    }
    switch (choice) {
      case 0:
        record->title += text_of(value, value % 60);
        break;
      case 1:
      case 2:
        record->numbers.push_back(value);
        break;
      case 3:
        record->notes.push_back(text_of(value, value % 100));
        break;
      case 4:
        if (!record->notes.empty()) {
          record->notes.pop_front();
        }
        break;
      default:
        rows_.emplace_back(value % 50, value);
        if (rows_.size() > 200) {
          rows_.erase(rows_.begin(), rows_.begin() + 100);
        }
        break;
    }
    if (record->numbers.size() > 40 || record->title.size() > 500) {
      gone_ += sum_of(*record);
      by_key_.erase(key);
      by_name_.erase(name);
    }
  }

  std::uint64_t sum() const {
    std::uint64_t result = gone_;
    for (const auto& [name, record] : by_name_) {
      result += name.size() + sum_of(*record);
    }
    for (const auto& [key, record] : by_key_) {
      result += key + record.use_count();
    }
    for (const std::vector<std::uint32_t>& row : rows_) {
      result += row.empty() ? 0 : row.back();
    }
    return result;
  }

 private:
  static std::uint64_t sum_of(const Record& record) {
    std::uint64_t result = record.title.size();
    for (const std::uint32_t number : record.numbers) {
      result += number;
    }
    for (const std::string& note : record.notes) {
      result += note.size() + static_cast<unsigned char>(note[0]);
    }
    return result;
  }

  std::map<std::string, std::shared_ptr<Record>> by_name_;
  std::unordered_map<std::uint32_t, std::shared_ptr<Record>> by_key_;
  std::vector<std::vector<std::uint32_t>> rows_;
  std::uint64_t gone_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const auto keys = static_cast<std::uint32_t>(options.whole("keys", 3000));
  const std::uint64_t count = options.scaled("count", 1'200'000) / threads;
  options.finish();
  bench::check(keys > 0, "--keys must not be 0");

  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t thread) {
    bench::Random random(thread);
    Store store;
    for (std::uint64_t i = 0; i < count; i++) {
      const std::uint32_t key = random.below(keys);
      const std::uint32_t choice = random.below(8);
      store.step(key, choice, random.below(1'000'000));
    }
    total += store.sum();
  });
  bench::report("checksum", total);
}
