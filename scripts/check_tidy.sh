#!/bin/bash
# Runs what clang knows about the sources: its thread-safety analysis, clang-tidy (.clang-tidy) and
# clang-format (.clang-format). A warning is an error.
#
# Usage: check_tidy.sh [locks|tidy|format]...    default: all three
set -euo pipefail
shopt -s nullglob

flags=(-std=c++20 -I. -fno-exceptions -fno-rtti -fPIC)
sources=(core/*.cc preload/*.cc)
if [ ${#sources[@]} -eq 0 ]; then
  echo "no source found: run this from the top of the repository" >&2
  exit 1
fi

# The debug build, so that the code in asserts is read as well.
locks() {
  printf '%s\n' "${sources[@]}" |
    xargs -n 1 -P "$(nproc)" clang++ "${flags[@]}" -DMINITC_DEBUG -fsyntax-only -Wall -Wextra \
      -Wthread-safety -Wthread-safety-beta -Werror
}

# Findings are on stdout; on stderr clang-tidy counts what it has suppressed in system headers.
tidy() {
  printf '%s\n' "${sources[@]}" |
    xargs -n 1 -P "$(nproc)" sh -c '
      clang-tidy --quiet "$0" -- '"${flags[*]}"' -DMINITC_DEBUG 2>/dev/null ||
        { echo "clang-tidy fails on $0"; exit 1; }'
}

format() {
  local file result=0
  while read -r file; do
    if ! clang-format --dry-run -Werror "$file" 2>/dev/null; then
      echo "not formatted; run: clang-format -i $file"
      result=1
    fi
  done < <(find core preload test -name '*.h' -o -name '*.cc' -o -name '*.c' | sort)
  return "$result"
}

status=0
if [ $# -eq 0 ]; then
  set -- locks tidy format
fi
for step in "$@"; do
  case $step in
    locks | tidy | format) "$step" || status=1 ;;
    *) echo "check_tidy.sh: no such step: $step" >&2; exit 1 ;;
  esac
done
exit "$status"
