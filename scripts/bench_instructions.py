#!/usr/bin/python3
"""Counts the instructions of a malloc and a free; `make bench-instructions` calls this.

Each program runs twice under callgrind, for two numbers of pairs. The difference of the two counts,
divided by the difference in pairs, is what one pair costs, with its loop and both calls. The start
and the warming up cancel out. The counts do not depend on what else the machine does.
"""
import argparse
import concurrent.futures
import dataclasses
import os
import re
import subprocess
import sys

import bench_contestants
import bench_measure
from bench_contestants import BadInput


@dataclasses.dataclass(frozen=True)
class Loop:
  """A program of test/bench that does one malloc and one free in each of --count steps."""
  name: str
  words: tuple


LOOPS = [
    Loop("tight-64", ("pairs", "--size=64")),
    Loop("ring-16-527", ("ring", "--least=16", "--most=527")),
    Loop("ring-1k-17k", ("ring", "--least=1024", "--most=17408")),
    Loop("calloc-48", ("ring", "--least=48", "--most=48", "--call=calloc")),
]


def count(programs, loop, contestant, pairs):
  """The instructions of a whole run, as callgrind counts them."""
  argv = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
          os.path.join(programs, loop.words[0]), *loop.words[1:], f"--count={pairs}"]
  done = subprocess.run(argv, env=bench_contestants.environment(contestant), capture_output=True,
                        text=True, check=False)
  collected = re.search(r"Collected : (\d+)", done.stderr)
  if done.returncode != 0 or not collected or "checksum=" not in done.stdout:
    raise BadInput(f"{loop.name} on {contestant.name}: status {done.returncode}\n{done.stderr}")
  return int(collected.group(1))


def parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  bench_contestants.add_arguments(parser)
  parser.add_argument("--short", type=int, default=100_000, metavar="PAIRS")
  parser.add_argument("--long", type=int, default=600_000, metavar="PAIRS")
  args = parser.parse_args()
  if not 0 < args.short < args.long:
    parser.error("--short must be above 0 and below --long")
  return args


def main():
  args = parse_arguments()
  try:
    loops = bench_contestants.select(LOOPS, args.only)
    contestants = bench_contestants.gather(args.lib, args.peers, args.contestants)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      runs = {(loop.name, c.name, n): pool.submit(count, args.programs, loop, c, n)
              for loop in loops for c in contestants for n in (args.short, args.long)}
      done = {key: run.result() for key, run in runs.items()}
  except (BadInput, OSError) as problem:
    print(f"bench_instructions.py: {problem}", file=sys.stderr)
    return 2
  result = {loop.name: {c.name: round((done[loop.name, c.name, args.long]
                                       - done[loop.name, c.name, args.short])
                                      / (args.long - args.short), 2) for c in contestants}
            for loop in loops}
  print("instructions per malloc and free, loop and calls included")
  print(f"{'':<14}" + "".join(f"{c.name:>12}" for c in contestants))
  for loop in loops:
    print(f"{loop.name:<14}"
          + "".join(f"{result[loop.name][c.name]:12.1f}" for c in contestants))
  if args.json:
    bench_measure.write_json(args.json, result)
  return 0


if __name__ == "__main__":
  sys.exit(main())
