// A table by columns: each is one large block, and all of them are gone along in step, as by who
// appends rows, or adds columns up.
//
//   columns [--columns=32] [--bytes=1048576 of each] [--count=values over all passes]
#include "bench.h"

namespace {

constexpr int kPasses = 16;  // over one table

using Column = std::uint64_t*;

// No value is 0.
std::uint64_t value_at(std::size_t row, std::size_t column, std::uint64_t pass) {
  return (row ^ column) + pass + 1;
}

void write(const std::vector<Column>& table, std::size_t rows, std::uint64_t pass) {
  for (std::size_t row = 0; row < rows; row++) {
    for (std::size_t i = 0; i < table.size(); i++) {
      table[i][row] = value_at(row, i, pass);
    }
  }
}

std::uint64_t sum(const std::vector<Column>& table, std::size_t rows) {
  std::uint64_t total = 0;
  for (std::size_t row = 0; row < rows; row++) {
    for (const Column column : table) {
      total += column[row];
    }
  }
  return total;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t columns = options.whole("columns", 32);
  const std::size_t bytes = options.whole("bytes", 1 << 20);
  const std::size_t rows = bytes / sizeof(std::uint64_t);
  bench::check(columns > 0 && rows > 0, "wanted: --columns above 0, --bytes of 8 or more");
  const std::uint64_t passes = options.scaled("count", 128'000'000) / (columns * rows) + 1;
  options.finish();

  std::uint64_t total = 0;
  std::vector<Column> table(columns);
  for (std::uint64_t pass = 0; pass < passes; pass++) {
    if (pass % kPasses == 0) {
      for (Column& column : table) {
        std::free(column);
        column = static_cast<Column>(std::malloc(bytes));
      }
    }
    write(table, rows, pass);
    total += sum(table, rows);
  }
  std::uint64_t expected = 0;
  for (std::size_t row = 0; row < rows; row++) {
    for (std::size_t i = 0; i < columns; i++) {
      expected += value_at(row, i, 0);
    }
  }
  expected = expected * passes + columns * rows * (passes * (passes - 1) / 2);
  bench::check(total == expected, "a column does not hold what was written");
  for (const Column column : table) {
    std::free(column);
  }
  bench::report("checksum", total);
}
