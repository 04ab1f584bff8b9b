#!/usr/bin/python3
"""Runs test/stress/churn.cc for a long time on each library in turn, and watches its memory.

Usage: run_soak.py PROGRAM NAME=LIBRARY... [--seconds N] [--threads N]

The time is shared by the libraries; each counts as a test. It fails
- if the program does not end by itself and in good order: it checks every byte that it keeps;
- if RSS is ever above LIVE_FACTOR times what is live and SLACK more: what the library may keep in
  thread caches and in free pages, each 32 MiB, and as much for spans that are in use in part;
- if RSS grows against what is live: if a straight line through RSS - live over the last two thirds
  of the time rises by more than DRIFT_PERCENT of what is live. (The difference, since the ratio
  goes up and down with what is live at the moment.) This is not asked of less than DRIFT_SAMPLES.
The last line is: N passed, N failed.
"""

import argparse
import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile

import bench_contestants
import bench_memory_workloads

LIVE_FACTOR = 1.25
SLACK = 96 * 2**20
DRIFT_PERCENT = 10
DRIFT_SAMPLES = 120
SAMPLE_SECONDS = 1
PRINT_SAMPLES = 10
PATIENCE_SECONDS = 300  # for the end, once the time is over
LINE = re.compile(r"sample ([\d.]+) (\d+) (\d+) (\d+)$")
GREETING = re.compile(r"libminitc: \S+ .*MINITC_VERBOSE=1.*\n")

# Memory is in bytes, operations since the start.
Sample = collections.namedtuple("Sample", "seconds live rss operations")


def judge(samples):
  """What is wrong with the memory, a text for each."""
  for sample in samples:
    bound = LIVE_FACTOR * sample.live + SLACK
    if sample.rss > bound:
      yield (f"after {sample.seconds:.0f} s RSS is {sample.rss / 2**20:.0f} MiB, "
             f"{sample.live / 2**20:.0f} are live; the bound is {bound / 2**20:.0f}")
      break
  if len(samples) >= DRIFT_SAMPLES:
    drift = bench_memory_workloads.rise(samples[len(samples) // 3:])
    print(f"RSS - live rises by {drift:.1f} % of live in the last two thirds", flush=True)
    if drift > DRIFT_PERCENT:
      yield f"RSS grows: {drift:.1f} %, the bound is {DRIFT_PERCENT} %"


def watch(name, stream):
  """Returns the samples that the program prints, and prints the means of some together."""
  samples = []
  for match in filter(None, map(LINE.match, stream)):
    samples.append(Sample(float(match[1]), *map(int, match.groups()[1:])))
    if len(samples) % PRINT_SAMPLES != 0:
      continue
    recent = samples[-PRINT_SAMPLES:]
    live = statistics.fmean(sample.live for sample in recent)
    rss = statistics.fmean(sample.rss for sample in recent)
    rate = (recent[-1].operations - recent[0].operations) / (recent[-1].seconds - recent[0].seconds)
    print(f"{name:<8} {recent[-1].seconds:6.0f} s  live {live / 2**20:6.1f} MiB  RSS "
          f"{rss / 2**20:6.1f} MiB  ratio {rss / live:5.3f}  {rate:8.0f} operations/s", flush=True)
  return samples


def soak(program, name, library, seconds, threads):
  """Runs the program on one library; returns what is wrong, a text for each."""
  argv = ["timeout", "--foreground", str(seconds + PATIENCE_SECONDS),
          "env", f"LD_PRELOAD={os.path.abspath(library)}", "MINITC_VERBOSE=1",
          os.path.abspath(program), str(threads), f"{seconds}s", "1", f"soak={SAMPLE_SECONDS}"]
  with tempfile.TemporaryFile("w+", errors="replace") as errors:
    with subprocess.Popen(argv, env=bench_contestants.clean_environment(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=errors, text=True) as process:
      samples = watch(name, process.stdout)
    errors.seek(0)
    said = errors.read()
  if process.returncode == 124:
    return [f"no end {PATIENCE_SECONDS} s after its time\n{said}"]
  if process.returncode != 0:
    return [f"exit status {process.returncode}\n{said}"]
  if not GREETING.fullmatch(said):
    return [f"expected the library's greeting alone on stderr\n{said}"]
  if not samples:
    return ["no sample"]
  return list(judge(samples))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("program")
  parser.add_argument("libraries", nargs="+", metavar="NAME=LIBRARY")
  parser.add_argument("--seconds", type=int, default=1800, metavar="N")
  parser.add_argument("--threads", type=int, default=64, metavar="N")
  args = parser.parse_args()
  libraries = [entry.partition("=")[::2] for entry in args.libraries]
  if not all(os.path.isfile(library) for _, library in libraries):
    parser.error("write each library as NAME=PATH")
  failed = 0
  for name, library in libraries:
    failures = soak(args.program, name, library, args.seconds // len(libraries), args.threads)
    for failure in failures:
      print(f"FAILED {name}: {failure}")
    failed += bool(failures)
  print(f"{len(libraries) - failed} passed, {failed} failed")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
