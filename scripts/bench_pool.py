#!/usr/bin/python3
"""Compares region pools with malloc and free, and with hand-written bumps; `make bench-pool` calls it.

test/bench/requests.cc serves requests of 40 small blocks and 2 large ones. Every way to get them is
a whole process, and all take turns. Times are CPU times, divided by those of the pool in the same
turn: the medians of these ratios are meant to be read. Instructions are callgrind's, for a request
with its loop, as bench_instructions.py counts those of a pair.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys

import bench_contestants
import bench_instructions
import bench_measure
from bench_contestants import BadInput, Contestant
from bench_measure import BadRun

TIME_LIMIT_S = 600
OWN_WAYS = ("pool", "pool-inline", "bump", "bump-inline")


def rows(contestants):
  """What is compared: malloc on each contestant, and the other ways on ours. The name says which."""
  ours = next((c for c in contestants if c.name == bench_contestants.OURS), None)
  if ours is None:
    raise BadInput(f"pools are {bench_contestants.OURS}'s: it has to take part")
  return ([Contestant(f"{c.name} malloc", c.path) for c in contestants]
          + [Contestant(f"{ours.name} {way}", ours.path) for way in OWN_WAYS])


def words_of(row):
  return "requests", f"--way={row.name.split()[1]}"


def run(args, report, row):
  """The CPU seconds of a whole run."""
  program, *options = words_of(row)
  process = bench_measure.start(os.path.join(args.programs, "measure"), report, [
      os.path.join(args.programs, program), *options, f"--scale={args.scale}"],
      bench_contestants.environment(row))
  try:
    _, err = bench_measure.wait(process, TIME_LIMIT_S)
  finally:
    bench_measure.end(process)
  if process.returncode != 0:
    raise BadRun(f"status {process.returncode}: {err.decode(errors='replace').strip()}")
  return bench_measure.costs(report)["cpu_s"]


def instructions(args, row):
  """Of one request."""
  loop = bench_instructions.Loop(row.name, words_of(row))
  few, many = (bench_instructions.count(args.programs, loop, row, n) for n in (2_000, 12_000))
  return (many - few) / 10_000


def parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  bench_contestants.add_arguments(parser)
  parser.add_argument("--work", required=True, type=pathlib.Path, metavar="DIR",
                      help="for files of its own")
  parser.add_argument("-n", type=int, default=9, metavar="N", help="turns; default 9")
  parser.add_argument("--scale", type=float, default=1.0, metavar="F",
                      help="so much of 1,000,000 requests")
  args = parser.parse_args()
  if not 1 <= args.n <= 1000 or not 0 < args.scale <= 1000:
    parser.error("-n must be 1 to 1000, --scale above 0 and up to 1000")
  return args


def measure(args):
  """{row: {what: figure}}"""
  args.work.mkdir(parents=True, exist_ok=True)
  compared = rows(bench_contestants.gather(args.lib, args.peers, args.contestants))

  def failed(row, problem):
    raise BadInput(f"{row.name}: {problem}")
  seconds = bench_measure.in_turn(compared, args.n,
                                  lambda row: run(args, args.work / "measured.json", row), failed)
  return {row.name: {
      "seconds": statistics.median(seconds[row.name]),
      **{f"per {way}": statistics.median(
          mine / pool for mine, pool in zip(seconds[row.name], seconds[f"minitc {way}"]))
         for way in OWN_WAYS[:2]},
      "instructions": instructions(args, row)} for row in compared}


def main():
  args = parse_arguments()
  try:
    result = measure(args)
  except (BadInput, OSError, subprocess.SubprocessError) as problem:
    print(f"bench_pool.py: {problem}", file=sys.stderr)
    return 2
  print("CPU time of all requests, the same divided by the pool's, instructions of a request")
  print(f"{'':<20}{'seconds':>10}{'/ pool':>10}{'/ inline':>10}{'instr.':>10}")
  for name, row in result.items():
    print(f"{name:<20}{row['seconds']:10.3f}{row['per pool']:10.2f}{row['per pool-inline']:10.2f}"
          f"{row['instructions']:10.0f}")
  if args.json:
    bench_measure.write_json(args.json, result)
  return 0


if __name__ == "__main__":
  sys.exit(main())
