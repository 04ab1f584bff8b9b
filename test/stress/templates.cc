// Keeps a compiler busy: deep recursion over types, tables computed at compile time, and a good
// deal of the standard library. It is compiled, not run: test_compile.py compares the object files.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace types {

template <class... T>
struct List {};
template <std::size_t N>
struct Number {
  static constexpr std::size_t value = N;
};

template <class L, class T>
struct Append;
template <class... T, class U>
struct Append<List<T...>, U> {
  using type = List<T..., U>;
};

// A list of N pseudo-random numbers, built one at a time on purpose.
template <std::size_t N>
struct Shuffled {
  using type =
      typename Append<typename Shuffled<N - 1>::type, Number<(N * 7919 + 104729) % 1009>>::type;
};
template <>
struct Shuffled<0> {
  using type = List<>;
};

template <class Head, class L>
struct Prepend;
template <class Head, class... T>
struct Prepend<Head, List<T...>> {
  using type = List<Head, T...>;
};

template <class T, class L>
struct Insert;
template <class T>
struct Insert<T, List<>> {
  using type = List<T>;
};
template <class T, class Head, class... Rest>
struct Insert<T, List<Head, Rest...>> {
  template <bool Before, class = void>
  struct Pick {
    using type = List<T, Head, Rest...>;
  };
  template <class Unused>
  struct Pick<false, Unused> {
    using type = typename Prepend<Head, typename Insert<T, List<Rest...>>::type>::type;
  };
  using type = typename Pick<(T::value < Head::value)>::type;
};

template <class L>
struct Sort;
template <>
struct Sort<List<>> {
  using type = List<>;
};
template <class Head, class... Rest>
struct Sort<List<Head, Rest...>> {
  using type = typename Insert<Head, typename Sort<List<Rest...>>::type>::type;
};

template <class L>
struct Values;
template <class... T>
struct Values<List<T...>> {
  static constexpr std::array<std::size_t, sizeof...(T)> value{T::value...};
};

using Sorted = typename Sort<typename Shuffled<40>::type>::type;
static_assert(std::is_sorted(Values<Sorted>::value.begin(), Values<Sorted>::value.end()));

}  // namespace types

namespace tables {

constexpr auto primes = [] {
  std::array<std::uint32_t, 300> found{};
  std::size_t count = 0;
  for (std::uint32_t n = 2; count < found.size(); ++n) {
    bool is_prime = true;
    for (std::size_t i = 0; i < count && found[i] * found[i] <= n && is_prime; ++i)
      is_prime = n % found[i] != 0;
    if (is_prime) found[count++] = n;
  }
  return found;
}();
static_assert(primes[299] == 1987);

}  // namespace tables

namespace shapes {

template <std::size_t N>
struct Shape {
  std::array<double, N % 7 + 1> sides{};
  std::string name = "shape";
  double area() const { return std::accumulate(sides.begin(), sides.end(), double(N)); }
};

template <class Indices>
struct AnyOf;
template <std::size_t... I>
struct AnyOf<std::index_sequence<I...>> {
  using type = std::variant<Shape<I>...>;
};
using Any = typename AnyOf<std::make_index_sequence<18>>::type;

double total(const std::vector<Any>& all) {
  double sum = 0;
  for (const Any& one : all) sum += std::visit([](const auto& shape) { return shape.area(); }, one);
  return sum;
}

template <std::size_t... I>
std::vector<Any> one_of_each(std::index_sequence<I...>) {
  return {Any(std::in_place_index<I>)...};
}

std::vector<Any> make_all() { return one_of_each(std::make_index_sequence<18>{}); }

bool less(const Any& left, const Any& right) {
  return std::visit([](const auto& a, const auto& b) { return a.area() < b.area(); }, left, right);
}

}  // namespace shapes

namespace containers {

template <std::size_t N>
std::size_t exercise(std::size_t seed) {
  using Key = std::tuple<std::array<std::size_t, N % 3 + 1>, std::string, std::optional<int>>;
  std::map<Key, std::shared_ptr<std::vector<Key>>> index;
  std::set<std::pair<Key, std::size_t>> order;
  std::unordered_map<std::size_t, std::function<std::size_t(std::size_t)>> steps;
  for (std::size_t i = 0; i < N; ++i) {
    Key key{{}, std::to_string(seed * i), static_cast<int>(i)};
    index[key] = std::make_shared<std::vector<Key>>(N, key);
    order.emplace(key, i);
    steps[i] = [i, seed](std::size_t x) { return x * seed + i; };
  }
  for (const auto& [i, step] : steps) seed = step(seed + i);
  return seed + index.size() + order.size();
}

template <std::size_t... I>
std::size_t exercise_all(std::index_sequence<I...>, std::size_t seed) {
  ((seed = exercise<I + 1>(seed)), ...);
  return seed;
}

}  // namespace containers

std::size_t work(std::size_t seed) {
  auto all = shapes::make_all();
  std::stable_sort(all.begin(), all.end(), shapes::less);
  return containers::exercise_all(std::make_index_sequence<3>{}, seed) +
         static_cast<std::size_t>(shapes::total(all)) + tables::primes[seed % 300] +
         types::Values<types::Sorted>::value[seed % 40];
}
