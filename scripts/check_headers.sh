#!/bin/bash
# Checks that every header compiles alone, twice in a row, with g++ and clang++; what programs
# include also as theirs: preload/minitc.h as C11 and C++11, preload/minitc_pool.hpp as C++17.
#
# Usage: check_headers.sh
set -euo pipefail
shopt -s nullglob

warnings=(-Wall -Wextra -Werror -I. -fsyntax-only)
status=0
count=0

# Reads the header through a one-line source: as the main file, a header gets warnings of its own.
check() {
  local header=$1
  shift
  count=$((count + 1))
  if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
      "$@" "${warnings[@]}" -; then
    echo "$header: does not compile alone with: $*" >&2
    status=1
  fi
}

for header in core/*.h preload/*.h; do
  for compiler in g++ clang++; do
    check "$header" "$compiler" -x c++ -std=c++20 -fno-exceptions -fno-rtti
  done
done
if [ -e preload/minitc.h ]; then
  for compiler in gcc clang; do
    check preload/minitc.h "$compiler" -x c -std=c11 -Wpedantic
    check preload/minitc.h "$compiler" -x c++ -std=c++11 -Wpedantic
  done
fi
for header in preload/*.hpp; do
  for compiler in g++ clang++; do
    check "$header" "$compiler" -x c++ -std=c++17 -Wpedantic
  done
done

echo "$count compilations of headers"
if [ "$count" -eq 0 ]; then
  echo "no header found: run this from the top of the repository" >&2
  status=1
fi
exit "$status"
