#!/usr/bin/python3
"""Checks that every lock is known where all of them have to be.

Usage: check_locks.py

For each enumerator of LockRank in core/lock.h, in that order: one declaration of a lock of that
rank, a row in docs/locks.md, and a call in core/fork.cc that takes it before a fork and one that
gives it back. No lock of another kind may exist: fork would not know it. docs/locks.md also has the
name of each atomic variable, as it says why each needs no lock.
"""

import pathlib
import re
import sys

RANKS = re.compile(r"enum class LockRank[^{]*\{([^}]*)\}")
DECLARATION = re.compile(r"^\s*(?:mutable )?RankedLock<LockRank::(\w+)> \w+\s*(?:MINITC_\w+.*)?;", re.M)
ROW = re.compile(r"^\| \d+ `(\w+)` \|", re.M)
ATOMIC = re.compile(r"^\s*(?:\[\[.*?\]\] )?(?:static |extern )?std::atomic<[^;]*> (\w+)[{;]", re.M)
OTHER = re.compile(r"\bstd::\w*mutex\b|\bpthread_(?:mutex|rwlock|spin|once)\w*|\bcall_once\b"
                   r"|\bsem_\w+|\batomic_flag\b")


def main():
  sources = {path: path.read_text(encoding="utf-8")
             for folder in ("core", "preload") for path in sorted(pathlib.Path(folder).glob("*.*"))}
  fork = re.sub(r"//.*", "", sources[pathlib.Path("core/fork.cc")])
  ranks = re.findall(r"\w+", RANKS.search(sources[pathlib.Path("core/lock.h")]).group(1))
  declared = [rank for text in sources.values() for rank in DECLARATION.findall(text)]
  document = pathlib.Path("docs/locks.md").read_text(encoding="utf-8")
  rows = ROW.findall(document)

  errors = []
  if sorted(declared) != sorted(ranks):
    errors.append(f"locks are declared of the ranks {declared}, and there are the ranks {ranks}")
  if rows != ranks:
    errors.append(f"docs/locks.md has the rows {rows}, and there are the ranks {ranks}")
  for call in ("lock_for_fork()", "unlock_after_fork()"):
    if fork.count("." + call) != len(ranks):
      errors.append(f"core/fork.cc has {fork.count('.' + call)} calls of {call}, and there are "
                    f"{len(ranks)} ranks")
  for path, text in sources.items():
    for match in OTHER.finditer(re.sub(r"//.*", "", text)):
      errors.append(f"{path}: {match.group()}: a lock that fork does not know")
    for name in ATOMIC.findall(text):
      if not re.search(rf"`[^`]*\b{name}\b[^`]*`", document):
        errors.append(f"{path}: docs/locks.md does not say why {name} needs no lock")
  for line in errors:
    print(line)
  print(f"{len(ranks)} ranks")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
