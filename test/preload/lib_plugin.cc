// A plugin to be opened and closed often, with static objects and thread_local ones.
#include <map>
#include <string>
#include <vector>

namespace {

std::map<int, std::string> built_at_load = [] {
  std::map<int, std::string> result;
  for (int i = 0; i < 200; i++) result[i] = std::string(static_cast<size_t>(i) * 5, 'p');
  return result;
}();

thread_local std::vector<int> per_thread;

}  // namespace

extern "C" int plugin_work(int rounds) {
  size_t sum = 0;
  for (int i = 0; i < rounds; i++) {
    per_thread.push_back(i);
    std::string text(static_cast<size_t>(i % 3000), 'w');
    sum += text.size() + built_at_load[i % 200].size();
  }
  per_thread.clear();
  per_thread.shrink_to_fit();
  return sum > 0;
}
