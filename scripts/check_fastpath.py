#!/usr/bin/python3
"""Counts the instructions of the fast paths and compares them with a table.

Usage: check_fastpath.py LIB TABLE [--update] [--show FUNCTION]

Disassembles each function of the table and follows the path that a cached allocation takes: from
the first instruction to the first `ret`. That is the fall-through path where the compiler laid it
out so, and else the shortest path that calls nothing and stores something: a path without a store
has moved no object. Only where there is no such path one through calls is taken; a jump to another
function, which is a call too, ends it.
--update writes the counts into the table; --show prints the instructions that were counted.
"""

import argparse
import collections
import difflib
import re
import subprocess
import sys

# The promise of docs/design.md: instructions, branches, pushes, calls. The table cannot relax it.
LIMITS = {"malloc": (18, 2, 0, 0), "free": (20, 2, 0, 0), "minitc_pool_alloc": (14, 3, 0, 0)}
DEFAULT_FUNCTIONS = ["malloc", "free", "calloc", "_Znwm", "_ZdlPv"]
COLUMNS = ["instructions", "branches", "loads", "stores", "pushes", "calls"]
HEADER = f"""\
# The straight line of each function, from its entry to the first ret, as g++ 12 -O2 compiles it.
# Written by: scripts/check_fastpath.py libminitc.so test/golden/fastpath.txt --update
# {"function":<16}{"".join(f"{c:>14}" for c in COLUMNS)}
"""

# Bounds the search for a path: fast paths are a few dozen instructions.
MAX_INSTRUCTIONS = 200
MAX_STEPS = 200_000

Instruction = collections.namedtuple("Instruction", "address text mnemonic operands")

PREFIX = re.compile(r"lock|rep\w*|bnd|notrack|data16|addr32|rex(\.\w+)?|[c-gs]s")
WRITES_FIRST_ONLY = re.compile(r"v?(mov|set|pextr|fst|stos)")
READS_ONLY = re.compile(r"v?(cmp(?!xchg)|test|bt$|ptest|ucomis|comis|mul|div|imul|idiv)")
NO_ACCESS = re.compile(r"(lea|nop|endbr64|prefetch|data16|call|jmp|j|push|pop|ret|leave)")


class NoPath(Exception):
  """A function without a path that could hand over an object."""


def run(*argv):
  done = subprocess.run(argv, check=False, capture_output=True, text=True)
  if done.returncode:
    sys.exit(f"{' '.join(argv)}: {done.stderr.strip()}")
  return done.stdout


def symbol_ranges(lib):
  """Maps each exported function to (address, size)."""
  ranges = {}
  for line in run("readelf", "--dyn-syms", "-W", lib).splitlines():
    f = line.split()
    if len(f) >= 8 and f[3] == "FUNC" and f[6] != "UND":
      ranges[f[7].split("@")[0]] = (int(f[1], 16), int(f[2], 0))
  return ranges


def disassemble(lib, address, size):
  text = run("objdump", "-d", "-w", "--no-show-raw-insn", "-M", "intel",
             f"--start-address={address:#x}", f"--stop-address={address + size:#x}", lib)
  code = []
  for line in text.splitlines():
    match = re.match(r"\s+([0-9a-f]+):\s+(.*?)\s*$", line)
    if not match:
      continue
    words = match.group(2).split("#")[0].split("<")[0].split()
    while len(words) > 1 and PREFIX.fullmatch(words[0]):
      words.pop(0)
    code.append(Instruction(int(match.group(1), 16), match.group(2), words[0], " ".join(words[1:])))
  return code


def jump_target(instruction):
  return int(instruction.operands, 16) if re.fullmatch(r"[0-9a-f]+", instruction.operands) else None


def is_branch(mnemonic):
  return mnemonic.startswith("j") and mnemonic != "jmp"


def is_end(instruction, index_of):
  """Whether the function ends here: it returns, or it jumps to another function."""
  return instruction.mnemonic == "ret" or (
      instruction.mnemonic == "jmp" and jump_target(instruction) not in index_of)


def fits(path, through_calls):
  """Whether a path to the function's end can be the one that hands over an object."""
  counts = count(path)
  if through_calls:
    return counts["stores"] > 0
  return counts["stores"] > 0 and counts["calls"] == 0 and path[-1].mnemonic == "ret"


def fall_through(code, index_of):
  """The path with no branch taken."""
  path, at, seen = [], 0, set()
  while at < len(code) and at not in seen:
    seen.add(at)
    path.append(code[at])
    if is_end(code[at], index_of):
      break
    at = index_of[jump_target(code[at])] if code[at].mnemonic == "jmp" else at + 1
  return path


def shortest(code, index_of, through_calls):
  """Breadth first over both edges of every branch: the first fitting path is the shortest."""
  queue = collections.deque([(0, ())])
  for _ in range(MAX_STEPS):
    if not queue:
      break
    at, before = queue.popleft()
    if at is None or at >= len(code) or at in before or len(before) >= MAX_INSTRUCTIONS:
      continue
    trail = before + (at,)
    mnemonic = code[at].mnemonic
    if is_end(code[at], index_of):
      path = [code[i] for i in trail]
      if fits(path, through_calls):
        return path
    elif mnemonic == "jmp":
      queue.append((index_of[jump_target(code[at])], trail))
    elif mnemonic != "call" or through_calls:
      queue.append((at + 1, trail))
      if is_branch(mnemonic):
        queue.append((index_of.get(jump_target(code[at])), trail))
  return None


def fast_path(code):
  index_of = {instruction.address: i for i, instruction in enumerate(code)}
  straight = fall_through(code, index_of)
  for through_calls in (False, True):
    if fits(straight, through_calls):
      return straight
    found = shortest(code, index_of, through_calls)
    if found:
      return found
  raise NoPath(f"no path stores anything; the straight line ends at: {straight[-1].text}")


def count(path):
  counts = dict.fromkeys(COLUMNS, 0)
  for ins in path:
    counts["instructions"] += 1
    counts["branches"] += is_branch(ins.mnemonic)
    counts["pushes"] += ins.mnemonic == "push"
    counts["calls"] += ins.mnemonic == "call" or (ins.mnemonic == "jmp" and ins is path[-1])
    operands = ins.operands.split(",")
    memory = [bool(re.search(r"\[|\b[fg]s:", operand)) for operand in operands]
    if not any(memory):
      continue
    if NO_ACCESS.match(ins.mnemonic):
      counts["loads"] += ins.mnemonic in ("call", "jmp", "push")
      continue
    writes = memory[0] and not READS_ONLY.match(ins.mnemonic)
    counts["stores"] += writes
    counts["loads"] += not writes or not WRITES_FIRST_ONLY.match(ins.mnemonic)
  return counts


def row(name, counts):
  return f"{name:<18}" + "".join(f"{counts[c]:>14}" for c in COLUMNS) + "\n"


def over_limits(name, counts):
  if name not in LIMITS:
    return []
  keys = ("instructions", "branches", "pushes", "calls")
  return [f"{name}: {counts[key]} {key}, the limit is {limit}"
          for key, limit in zip(keys, LIMITS[name]) if counts[key] > limit]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("lib")
  parser.add_argument("table")
  parser.add_argument("--update", action="store_true")
  parser.add_argument("--show", metavar="FUNCTION")
  args = parser.parse_args()

  try:
    with open(args.table, encoding="utf-8") as stream:
      wanted = stream.read()
  except FileNotFoundError:
    wanted = ""
  names = [line.split()[0] for line in wanted.splitlines() if line.strip() and line[0] != "#"]
  ranges = symbol_ranges(args.lib)
  missing = [name for name in LIMITS if name not in names]
  if args.update:
    names = missing + names if names else [n for n in DEFAULT_FUNCTIONS if n in ranges]
  if args.show:
    if args.show not in ranges:
      sys.exit(f"{args.show}: not exported")
    for ins in fast_path(disassemble(args.lib, *ranges[args.show])):
      print(f"{ins.address:8x}  {ins.text}")
    return 0

  errors = [] if args.update else [f"{args.table} has no row for {name}" for name in missing]
  actual = HEADER
  for name in names:
    if name not in ranges:
      errors.append(f"{name}: not exported")
      continue
    try:
      counts = count(fast_path(disassemble(args.lib, *ranges[name])))
    except NoPath as why:
      errors.append(f"{name}: {why}")
      continue
    actual += row(name, counts)
    errors += over_limits(name, counts)
  if args.update:
    with open(args.table, "w", encoding="utf-8") as stream:
      stream.write(actual)
  elif actual != wanted:
    errors.append(f"{args.table} differs from {args.lib}; if the change is meant, use --update")
    sys.stdout.writelines(difflib.unified_diff(wanted.splitlines(True), actual.splitlines(True),
                                               args.table, args.lib))
  else:
    print(actual, end="")
  for line in errors:
    print(line)
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
