#!/usr/bin/python3
"""Runs checks side by side and ends with one line: N passed, N failed.

Usage: run_checks.py [-j N] NAME=COMMAND...

COMMAND is a shell command line. What a check prints is shown when it fails, or with -v.
"""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import time


def run(command):
  start = time.monotonic()
  done = subprocess.run(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        errors="replace", check=False)
  return done.returncode, done.stdout, time.monotonic() - start


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("-j", type=int, default=os.cpu_count(), metavar="N")
  parser.add_argument("-v", action="store_true")
  parser.add_argument("checks", nargs="+", metavar="NAME=COMMAND")
  args = parser.parse_args()
  checks = [check.partition("=")[::2] for check in args.checks]
  if not all(command for _, command in checks):
    parser.error("write each check as NAME=COMMAND")

  failed = 0
  with concurrent.futures.ThreadPoolExecutor(args.j) as pool:
    for (name, _), (status, output, seconds) in zip(checks, pool.map(run, [c for _, c in checks])):
      failed += status != 0
      print(f"{'FAIL' if status else 'ok':<5} {name:<12} {seconds:6.1f} s", flush=True)
      if output.strip() and (status or args.v):
        print("      " + output.strip().replace("\n", "\n      "), flush=True)
  print(f"{len(checks) - failed} passed, {failed} failed")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
