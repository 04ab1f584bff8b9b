#!/usr/bin/python3
"""Measures programs on several mallocs and compares them; `make bench` calls this.

Every workload is a whole process. In each repetition every contestant runs it once, in an order
that rotates, so that what else the machine does meets all of them alike. What is printed is meant
for ratios: absolute times hold for this machine and this hour only.

It ends with status 0, with 1 if a run failed, or with 2 if the command line is wrong.
"""
import argparse
import datetime
import pathlib
import subprocess
import sys
import time

import bench_contestants
import bench_measure
import bench_report
import bench_workloads
from bench_contestants import BadInput
from bench_measure import BadRun

QUICK_SCALE = 0.25
QUICK_REPETITIONS = 3
REPETITIONS = 5


def parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  bench_contestants.add_arguments(parser)
  parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR",
                      help="where result.json, result.md and chart.svg go")
  parser.add_argument("--quick", action="store_true",
                      help=f"fewer workloads, --scale {QUICK_SCALE}, {QUICK_REPETITIONS} times")
  parser.add_argument("-n", type=int, metavar="N", help=f"repetitions; default {REPETITIONS}")
  parser.add_argument("--scale", type=float, metavar="F", help="so much of the work; default 1")
  parser.add_argument("--threads", default="", metavar="N,…",
                      help="numbers of threads, for the workloads that run with several")
  args = parser.parse_args()
  if args.n is None:
    args.n = QUICK_REPETITIONS if args.quick else REPETITIONS
  if args.scale is None:
    args.scale = QUICK_SCALE if args.quick else 1.0
  if not 1 <= args.n <= 1000 or not 0 < args.scale <= 1000:
    parser.error("-n must be 1 to 1000, --scale above 0 and up to 1000")
  try:
    args.threads = sorted({int(word) for word in filter(None, args.threads.split(","))})
  except ValueError:
    args.threads = [0]
  if not all(1 <= number <= 4096 for number in args.threads):
    parser.error("--threads: write numbers of 1 to 4096 with commas between them")
  return args


def measure(setup, workload, contestants, repetitions, failures):
  """Gives {contestant: [what each repetition cost]}. A contestant that fails is left out."""
  digest = None

  def run(contestant):
    nonlocal digest
    cost = bench_workloads.run(setup, workload, contestant)
    computed = cost.pop("digest", None)
    if digest not in (None, computed):
      raise BadRun("the result is not the one of the runs before")
    digest = computed
    return cost

  def failed(contestant, problem):
    failures.append(f"{workload.name} on {contestant.name}: {problem}")
    print(f"FAILED {failures[-1]}", file=sys.stderr, flush=True)

  return bench_measure.in_turn(contestants, repetitions, run, failed)


def machine(args, contestants):
  """What the figures depend on."""
  return {
      "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
      **bench_measure.machine(), "repetitions": args.n, "scale": args.scale,
      "contestants": bench_contestants.paths(contestants),
  }


def report(args, result):
  """Writes the files and prints the tables. The chart comes last: it is the least."""
  text = bench_report.tables(result)
  (args.out / "result.md").write_text(text, encoding="utf-8")
  for path in filter(None, (args.out / "result.json", args.json)):
    bench_measure.write_json(path, result)
  print(text, flush=True)
  bench_report.chart(result, args.out / "chart.svg")


def main():
  args = parse_arguments()
  try:
    available = [w for w in bench_workloads.all_workloads(args.threads)
                 if w.is_quick or not args.quick]
    workloads = bench_contestants.select(available, args.only)
    contestants = bench_contestants.gather(args.lib, args.peers, args.contestants)
    work = args.out.resolve() / "work"
    setup = bench_workloads.Setup(pathlib.Path(args.programs).resolve(), work, args.scale)
    bench_workloads.prepare(setup, workloads)
    result = {"machine": machine(args, contestants), "failures": [], "workloads": []}
    for number, workload in enumerate(workloads, 1):
      begin = time.monotonic()
      print(f"[{number}/{len(workloads)}] {workload.name}", end="", file=sys.stderr, flush=True)
      # Each workload begins with another contestant.
      first = number % len(contestants)
      runs = measure(setup, workload, contestants[first:] + contestants[:first], args.n,
                     result["failures"])
      result["workloads"].append({"name": workload.name, "is_probe": workload.is_probe,
                                  "runs": runs})
      print(f"  {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
    report(args, result)
  except (BadInput, OSError, subprocess.SubprocessError) as problem:
    print(f"bench.py: {problem}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    return 130
  return 1 if result["failures"] else 0


if __name__ == "__main__":
  sys.exit(main())
