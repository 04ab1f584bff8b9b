#!/usr/bin/python3
"""Runs the fuzzer and ends with one line: N passed, N failed.

Usage: run_fuzz.py PROGRAM CORPUS [--seconds N]
       run_fuzz.py PROGRAM CORPUS --merge

Every input of CORPUS is run, then new ones are made from them for so many seconds. Those that reach
something new go to the folder corpus beside PROGRAM, and a later run begins with them as well. An
input that fails is left beside PROGRAM and named. --merge replaces CORPUS by as few inputs as reach
the same as CORPUS and that folder together; but inputs that somebody has given a name stay.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

MAX_BYTES = 1024  # of an input: some hundred steps
INPUT_SECONDS = 60  # for one of a few milliseconds: a hang, even on a busy machine
PULSE_SECONDS = 10
OUTPUT_LINES = 40  # of a failure
HASH = re.compile(r"[0-9a-f]{40}")  # the fuzzer's own name for an input
PULSE = re.compile(r"^#(\d+)\s.*\bcov: (\d+) .*\bcorp: (\d+)/")
FAILURE = re.compile(r"model: |libminitc: |FakeOs: |==\d+==\s*ERROR|.*runtime error: ")


def run(argv, log_path, show=lambda line: None):
  """Runs the fuzzer; each line of its output goes to the log and to show(). Its exit status."""
  # Where there is no llvm-symbolizer, addr2line does.
  env = {"ASAN_OPTIONS": "allow_addr2line=1", "UBSAN_OPTIONS": "print_stacktrace=1", **os.environ}
  with log_path.open("w", encoding="utf-8") as log, subprocess.Popen(
      [str(word) for word in argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True, errors="replace") as process:
    for line in process.stdout:
      log.write(line)
      show(line)
  return process.returncode


def report(status, log_path):
  lines = log_path.read_text(encoding="utf-8").splitlines()
  start = next((i for i, line in enumerate(lines) if FAILURE.match(line)), -OUTPUT_LINES)
  print("    " + "\n    ".join(lines[start:][:OUTPUT_LINES]))
  print(f"FAILED: exit status {status}; all of it: {log_path}")
  return lines


def search(args, folder):
  found = folder / "corpus"
  found.mkdir(exist_ok=True)
  start = printed = time.monotonic()

  def pulse(line):
    nonlocal printed
    match = PULSE.match(line)
    now = time.monotonic()
    if match and now - printed >= PULSE_SECONDS:
      printed = now
      print(f"{now - start:6.0f} s {match[1]:>8} runs {match[2]:>6} edges of core/ "
            f"{match[3]:>6} inputs", flush=True)

  status = run([args.program, f"-artifact_prefix={folder}/", f"-timeout={INPUT_SECONDS}",
                f"-max_total_time={args.seconds}", f"-max_len={MAX_BYTES}", "-len_control=0",
                found, args.corpus], folder / "log", pulse)
  if status == 0:
    print("1 passed, 0 failed")
    return 0
  for line in report(status, folder / "log"):
    if match := re.search(r"Test unit written to (\S+)", line):
      print(f"the input: {match[1]}\nagain: {args.program} {match[1]}\n"
            f"shorter: {args.program} -minimize_crash=1 -runs=10000 {match[1]}")
  print("0 passed, 1 failed")
  return 1


def merge(args, folder):
  """Edges only: with the counts of how often each was passed, the set is many times as large."""
  with tempfile.TemporaryDirectory(dir=folder) as merged:
    status = run([args.program, "-set_cover_merge=1", "-use_counters=0", merged, args.corpus,
                  folder / "corpus"], folder / "log")
    if status != 0:
      report(status, folder / "log")
      return 1
    for path in args.corpus.iterdir():
      if HASH.fullmatch(path.name):
        path.unlink()
    for path in pathlib.Path(merged).iterdir():
      shutil.copy(path, args.corpus)
  sizes = [path.stat().st_size for path in args.corpus.iterdir()]
  print(f"{args.corpus}: {len(sizes)} inputs, {sum(sizes)} bytes")
  return 0


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("program", type=pathlib.Path)
  parser.add_argument("corpus", type=pathlib.Path)
  parser.add_argument("--seconds", type=int, default=120, metavar="N")
  parser.add_argument("--merge", action="store_true")
  args = parser.parse_args()
  return (merge if args.merge else search)(args, args.program.parent)


if __name__ == "__main__":
  sys.exit(main())
