#!/usr/bin/python3
"""Checks the include rule of docs/design.md: a file includes only files of a lower layer.

Usage: check_layers.py

A .cc file may also include its own header. preload/ stands above all of core/ and may include any
header of core/ and preload/. System headers come from the lists below, which hold nothing that
allocates: core runs before, inside and instead of malloc.
"""

import pathlib
import re
import sys

# The whole rule, in one place: a word is a file's name without its extension, a row is a layer.
LAYERS = [
    "config",
    "base text",
    "os zeros",
    "lock cgroup bad_pointer",
    "options",
    "size_class metadata_arena",
    "span",
    "page_map run_index",
    "page_heap",
    "central_cache page_huge page_move page_return page_take",
    "shards",
    "thread_cache central_check central_return central_spans",
    "heap",
    "stats fork heap_threads inspection region_pool",
    "stats_file",
]

# Types and templates that compile to nothing, and the kernel and libc calls that do not allocate.
CORE_SYSTEM = set("""
    algorithm array atomic bit compare cstddef cstdint limits new span type_traits utility
    errno.h fcntl.h limits.h pthread.h sched.h signal.h stddef.h stdint.h stdlib.h string.h time.h unistd.h
    linux/futex.h sys/auxv.h sys/mman.h sys/syscall.h
""".split())

# What the C ABI itself names: FILE of malloc_info, mallinfo2, the declarations that are replaced.
PRELOAD_SYSTEM = CORE_SYSTEM | set("dlfcn.h malloc.h stdio.h".split())

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include(?:_next)?[ \t]*(.*?)[ \t]*(?://.*|/\*.*)?$', re.M)

RANK = {name: number for number, row in enumerate(LAYERS) for name in row.split()}


def refusal(path, target):
  """Says why `path` may not include `target` ('"core/os.h"' or '<new>'), or returns None."""
  in_preload = path.parts[0] == "preload"
  if re.fullmatch(r"<[^>]+>", target):
    allowed = PRELOAD_SYSTEM if in_preload else CORE_SYSTEM
    return None if target[1:-1] in allowed else f"{target} is not on the list of system headers"
  if not re.fullmatch(r'"[^"]+"', target):
    return f"{target}: an include is a quoted name or a name in <>"
  name = pathlib.PurePosixPath(target[1:-1])
  if len(name.parts) != 2 or name.parts[0] not in ("core", "preload") or name.suffix != ".h":
    return f'{target}: write it as "core/name.h" or "preload/name.h"'
  if not pathlib.Path(name).is_file():
    return f"{target} does not exist"
  if in_preload:
    return None
  if name.parts[0] == "preload":
    return f"{target}: core never includes preload"
  if path.suffix == ".cc" and name.stem == path.stem:
    return None
  mine, theirs = RANK[path.stem], RANK.get(name.stem)
  if theirs is None:
    return f"{target} has no layer"
  if theirs >= mine:
    return f"{target} is in layer {theirs}, this file is in layer {mine}"
  return None


def main():
  errors = []
  files = sorted(p for d in ("core", "preload") for p in pathlib.Path(d).rglob("*") if p.is_file())
  edges = 0
  for path in files:
    if path.suffix in (".map", ".ld", ".hpp"):  # for the linker, and for programs
      continue
    if path.suffix not in (".h", ".cc"):
      errors.append(f"{path}: neither .h nor .cc")
      continue
    if path.parts[0] == "core" and path.stem not in RANK:
      errors.append(f"{path}: no layer; add it to LAYERS in scripts/check_layers.py")
      continue
    text = path.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
      edges += 1
      why = refusal(path, match.group(1))
      if why:
        errors.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {why}")
  stems = {p.stem for p in files if p.parts[0] == "core"}
  errors += [f"core/ has no {name}, which LAYERS names" for name in RANK if name not in stems]
  if not edges:
    errors.append("no include found: run this from the top of the repository")
  for line in errors:
    print(line)
  print(f"{len(files)} files, {edges} includes, {len(errors)} errors")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
