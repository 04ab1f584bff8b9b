#!/usr/bin/python3
"""Compares what mallocs do with memory: `make bench-memory` calls this.

Every workload is a whole process, watched from outside. Workloads that follow the clock run on all
contestants at the same time; of the others each contestant runs one after another, in an order that
rotates from repetition to repetition.

It ends with status 0, with 1 if a run failed, or with 2 if the command line is wrong.
"""
import argparse
import concurrent.futures
import contextlib
import datetime
import pathlib
import subprocess
import sys
import time

import bench_contestants
import bench_measure
import bench_memory_report
import bench_memory_workloads
import bench_workloads
from bench_contestants import BadInput
from bench_measure import BadRun

QUICK_PACE = 0.2


def parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  bench_contestants.add_arguments(parser)
  parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR",
                      help="where result.json, result.md and the charts go")
  parser.add_argument("--quick", action="store_true",
                      help=f"less work, --pace {QUICK_PACE}")
  parser.add_argument("-n", type=int, default=1, metavar="N", help="repetitions; default 1")
  parser.add_argument("--document", type=pathlib.Path, metavar="FILE",
                      help="a file of markdown to put the tables into, with the charts beside it")
  parser.add_argument("--scale", type=float, default=1.0, metavar="F",
                      help="so much of the work; default 1")
  parser.add_argument("--pace", type=float, metavar="F",
                      help="so much of the time, for workloads that follow the clock; default 1")
  args = parser.parse_args()
  if args.pace is None:
    args.pace = QUICK_PACE if args.quick else 1.0
  if not 1 <= args.n <= 1000 or not all(0 < f <= 1000 for f in (args.scale, args.pace)):
    parser.error("-n must be 1 to 1000, --scale and --pace above 0 and up to 1000")
  return args


def at_once(contestants, repetitions, run, failed):
  """As bench_measure.in_turn, but that in each repetition all run at the same time."""
  runs = {contestant.name: [] for contestant in contestants}
  for _ in range(repetitions):
    with concurrent.futures.ThreadPoolExecutor(len(contestants)) as pool:
      started = {c: pool.submit(run, c) for c in contestants if c.name in runs}
    for contestant, done in started.items():
      try:
        runs[contestant.name].append(done.result())
      except BadRun as problem:
        failed(contestant, problem)
        del runs[contestant.name]
  return runs


def measure(setup, workload, contestants, repetitions, failures):
  """Gives {contestant: [figures of each repetition]}, and {contestant: samples} of the first one. A
  contestant that fails is left out."""
  digests = []

  def run(contestant):
    done = bench_memory_workloads.run(setup, workload, contestant)
    digests.append(done["digest"])
    if done["digest"] != digests[0]:
      raise BadRun("the result is not the one of the runs before")
    return done

  def failed(contestant, problem):
    failures.append(f"{workload.name} on {contestant.name}: {problem}")
    print(f"FAILED {failures[-1]}", file=sys.stderr, flush=True)

  in_some_order = at_once if workload.is_paced else bench_measure.in_turn
  runs = in_some_order(contestants, repetitions, run, failed)
  return ({name: [{"figures": done["figures"]} for done in several]
           for name, several in runs.items()},
          {name: several[0]["samples"] for name, several in runs.items()})


def huge_pages():
  """When the kernel uses them: the word in brackets."""
  with contextlib.suppress(OSError, IndexError):
    path = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.read_text(encoding="ascii").split("[")[1].split("]")[0]
  return "unknown"


def save(args, result):
  """Writes the figures: after each workload, so that a run that is cut short has not been for
  nothing."""
  (args.out / "result.md").write_text(bench_memory_report.tables(result), encoding="utf-8")
  for path in filter(None, (args.out / "result.json", args.json)):
    bench_measure.write_json(path, result)


def main():
  args = parse_arguments()
  try:
    workloads = bench_contestants.select(bench_memory_workloads.WORKLOADS, args.only)
    contestants = bench_contestants.gather(args.lib, args.peers, args.contestants)
    setup = bench_memory_workloads.Setup(pathlib.Path(args.programs).resolve(),
                                         args.out.resolve() / "work", args.scale, args.pace,
                                         args.quick)
    bench_workloads.prepare(setup, workloads, bench_memory_workloads.words_of)
    if args.document:
      bench_memory_report.split(args.document)  # now rather than when all has been measured
    result = {"machine": {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **bench_measure.machine(), "huge_pages": huge_pages(), "repetitions": args.n,
        "scale": args.scale, "pace": args.pace, "is_quick": args.quick,
        "contestants": bench_contestants.paths(contestants),
    }, "failures": [], "workloads": []}
    for number, workload in enumerate(workloads, 1):
      begin = time.monotonic()
      print(f"[{number}/{len(workloads)}] {workload.name}", end="", file=sys.stderr, flush=True)
      runs, samples = measure(setup, workload, contestants, args.n, result["failures"])
      entry = {"name": workload.name, "is_probe": False, "compared": workload.compared,
               "runs": runs}
      if workload.title:
        entry.update(title=workload.title, samples=samples)
      result["workloads"].append(entry)
      save(args, result)
      print(f"  {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
    # The charts come last: they are the least.
    print(bench_memory_report.tables(result), flush=True)
    bench_memory_report.charts(result, args.out)
    if args.document:
      bench_memory_report.publish(result, args.out, args.document)
  except (BadInput, OSError, subprocess.SubprocessError) as problem:
    print(f"bench_memory.py: {problem}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    return 130
  return 1 if result["failures"] else 0


if __name__ == "__main__":
  sys.exit(main())
