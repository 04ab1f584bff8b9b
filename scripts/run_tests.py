#!/usr/bin/python3
"""Runs all groups of tests and ends with one line: N passed, N failed.

Usage: run_tests.py BUILD_DIR [--catch NAME=PROGRAM]... [--pytest PATH]... [--lib LIB]
                    [--only PATTERN] [--group-seconds N] [--last NAME=COMMAND]
                    [--platform NAME] [--runner COMMAND] [--jobs N]

A group is a Catch2 program, or a folder or file for pytest. A crash, a sanitizer's report and a
group that runs no test at all are failures; a skipped test is named with its reason and is not
counted as passed. --only runs one group (by name), the tests whose name contains PATTERN, or,
written as [tag], the Catch2 tests with that tag. Results are left in BUILD_DIR/results. --jobs
groups run at a time; they are begun in the order given, --pytest before --catch. --last
names a command that looks at them after all other groups: it gets that folder as its last argument
and counts as one test. With --only, when there is not everything to look at, it does not run.
--platform says that library and programs are for another platform than this machine's, --runner
what emulates it: Catch2 tests with the tag [kernel] are then skipped.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak)Sanitizer|(WARNING|FATAL): ThreadSanitizer|: runtime error: ")
OUTPUT_LINES = 200  # of a failed program; the end says most


@dataclasses.dataclass
class Group:
  """What one group of tests came to."""

  name: str
  passed: int = 0
  failures: list = dataclasses.field(default_factory=list)  # [test, text]
  skipped: list = dataclasses.field(default_factory=list)  # (test, reason)

  def fail(self, test, text):
    self.failures.append([test, text.strip()])


def tail(text):
  lines = text.splitlines()
  if len(lines) <= OUTPUT_LINES:
    return text
  return "\n".join([f"... {len(lines) - OUTPUT_LINES} lines left out", *lines[-OUTPUT_LINES:]])


def run(argv, seconds):
  """Runs a program in a process group of its own; returns (exit status or None, output)."""
  # A file, not a pipe: a daemon that a test left behind would hold the pipe open for ever.
  with tempfile.TemporaryFile() as output:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output,
                               stderr=subprocess.STDOUT, start_new_session=True)
    status = None
    try:
      status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
      pass
    finally:
      if status is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output.seek(0)
    return status, output.read().decode("utf-8", "replace")


def read_results(path):
  """The test cases of a junit file, or None if it is missing or torn."""
  try:
    return list(xml.parse(path).getroot().iter("testcase"))
  except (OSError, xml.ParseError):
    return None


def message_of(elements):
  return "\n".join(f"{e.get('message') or ''}\n{e.text or ''}".strip() for e in elements)


def collect(group, cases, name_of):
  for case in cases:
    failures = [e for e in case if e.tag in ("failure", "error")]
    skipped = case.find("skipped")
    if failures:
      printed = [e for e in case if e.tag in ("system-out", "system-err")
                 and not re.fullmatch(r"(-+ Captured \w+ -+)?", (e.text or "").strip())]
      group.fail(name_of(case), message_of(failures + printed))
    elif skipped is not None:
      group.skipped.append((name_of(case), (skipped.get("message") or "no reason given").strip()))
    else:
      group.passed += 1


def judge_exit(group, status, output, seconds):
  """Adds a failure for an end that the tests' own results do not explain."""
  if status is None:
    group.fail("time limit", f"stopped after {seconds} s\n{tail(output)}")
  elif group.failures or status == 0:
    return
  elif status < 0:
    group.fail("crash", f"ended by {signal.Signals(-status).name}\n{tail(output)}")
  else:
    group.fail("exit status", f"{status}, though no test failed\n{tail(output)}")


def list_catch(command, selection):
  listing = subprocess.run([*command, selection, "--list-test-names-only"], capture_output=True,
                           text=True, stdin=subprocess.DEVNULL, check=False)
  return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def run_catch(name, program, results, only, seconds, runner=()):
  group = Group(name)
  command = [*runner, program]
  without = "~[kernel]" if runner else ""
  names = list_catch(command, f"{without}~[.]")
  if runner and not only:
    group.skipped = [(n, "an emulator is no kernel") for n in list_catch(command, "[kernel]~[.]")]
  if only and only != name:
    if only.startswith("["):
      selection = only
    else:
      names = [n for n in names if only.lower() in n.lower()]
      selection = "*" + re.sub(r"([\\,\[])", r"\\\1", only) + "*"
      if not names:
        return None
  else:
    selection = None

  report = results / f"{name}.xml"
  report.unlink(missing_ok=True)
  # NoAssertions: a test case that asserts nothing fails. The junit reporter would leave it out.
  argv = [*command, "-r", "junit", "-o", str(report), "-w", "NoAssertions"]
  status, output = run([*argv, without + (selection or "~[.]")], seconds)
  cases = read_results(report)
  collect(group, cases or [], lambda case: case.get("name"))
  if SANITIZER_REPORT.search(output):
    group.fail("sanitizer", tail(output))
  judge_exit(group, status, output, seconds)
  if cases is None and not group.failures:
    group.fail("results", f"{report} is missing or torn\n{tail(output)}")
  if selection is None:
    ran = {case.get("name").split("/")[0] for case in cases or []}
    lost = [n for n in names if n.split("/")[0] not in ran]
    if lost and group.failures:
      group.failures[-1][1] += f"\nwithout a result: {'; '.join(lost)}"
    elif lost:
      group.fail("lost tests", f"no result (no assertion, or an early end): {'; '.join(lost)}")
  return group if group.passed or group.failures or selection is None else None


def run_pytest(folder, results, only, seconds):
  group = Group(pathlib.PurePath(folder).stem)
  if only and only != group.name and not re.fullmatch(r"[\w.:+-]+", only):
    return None  # no pytest test has such a name, and to -k it may be an error
  report = results / f"{group.name}.xml"
  report.unlink(missing_ok=True)
  argv = ["/usr/bin/python3", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
          "-o", "junit_logging=out-err", f"--junitxml={report}", folder]
  if only and only != group.name:
    argv += ["-k", only]
  status, output = run(argv, seconds)
  if status == 5 and only:  # pytest found nothing that matches
    return None
  cases = read_results(report)
  collect(group, cases or [], lambda case: f"{case.get('classname')}::{case.get('name')}")
  if status != 5:  # 5: it found no test, which show() reports
    judge_exit(group, status, output, seconds)
  if cases is None and not group.failures:
    group.fail("results", f"{report} is missing or torn\n{tail(output)}")
  return group


def run_last(name, command, results, seconds):
  group = Group(name)
  status, output = run([*shlex.split(command), str(results)], seconds)
  if status == 0:
    group.passed = 1
  else:
    group.fail(name, tail(output))
  return group


def show(group, seconds):
  if not group.passed and not group.failures:
    group.fail("no tests", f"{group.name} ran no test")
  print(f"{group.name:<16} {group.passed:5} passed {len(group.failures):3} failed "
        f"{len(group.skipped):3} skipped {seconds:7.1f} s")
  for test, reason in group.skipped:
    print(f"  skipped {test}: {reason}")
  for test, text in group.failures:
    print(f"  FAILED {group.name}: {test}")
    print("    " + text.replace("\n", "\n    "))
  sys.stdout.flush()


def timed(name, run_group):
  """What a group came to, and how many seconds it took."""
  start = time.monotonic()
  try:
    group = run_group()
  except OSError as error:
    group = Group(name)
    group.fail("start", str(error))
  return group, time.monotonic() - start


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("build_dir", type=pathlib.Path)
  parser.add_argument("--catch", action="append", default=[], metavar="NAME=PROGRAM")
  parser.add_argument("--pytest", nargs="+", action="extend", default=[], metavar="PATH")
  parser.add_argument("--lib", help="the library under test: TEST_LIB for the programs")
  parser.add_argument("--only", metavar="PATTERN")
  parser.add_argument("--last", metavar="NAME=COMMAND")
  parser.add_argument("--platform", metavar="NAME")
  parser.add_argument("--runner", default="", metavar="COMMAND")
  parser.add_argument("--group-seconds", type=int, default=1800, metavar="N")
  parser.add_argument("--jobs", type=int, default=1, metavar="N")
  args = parser.parse_args()

  results = args.build_dir.resolve() / "results"
  results.mkdir(parents=True, exist_ok=True)
  os.environ["TEST_BUILD"] = str(args.build_dir.resolve())
  if args.lib:
    os.environ["TEST_LIB"] = os.path.abspath(args.lib)
  if args.platform:
    os.environ["TEST_PLATFORM"] = args.platform
  if args.runner:
    os.environ["TEST_RUNNER"] = args.runner
  # Halting makes the report the last thing in the output, and the exit status tell.
  os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
  # Its shadow of memory that was mapped for a short time only is dropped at this size.
  os.environ.setdefault("TSAN_OPTIONS", "memory_limit_mb=4000:halt_on_error=1")

  groups = {}
  for folder in args.pytest:
    groups[pathlib.PurePath(folder).stem] = lambda folder=folder: run_pytest(
        folder, results, args.only, args.group_seconds)
  for entry in args.catch:
    name, _, program = entry.partition("=")
    if not program:
      parser.error(f"--catch {entry}: write NAME=PROGRAM")
    groups[name] = lambda name=name, program=program: run_catch(
        name, os.path.abspath(program), results, args.only, args.group_seconds,
        shlex.split(args.runner))
  if args.only in groups:
    groups = {args.only: groups[args.only]}

  passed = failed = 0

  def count(group, seconds):
    nonlocal passed, failed
    if group is not None:  # --only left something of it
      show(group, seconds)
      passed += group.passed
      failed += len(group.failures)

  if args.last and not args.only:
    for old in results.glob("*.xml"):  # of a group that is no more
      old.unlink()
  with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
    running = [pool.submit(timed, name, group) for name, group in groups.items()]
    for done in concurrent.futures.as_completed(running):
      count(*done.result())
  if args.last and not args.only:
    name, _, command = args.last.partition("=")
    count(*timed(name, lambda: run_last(name, command, results, args.group_seconds)))
  if not passed and not failed:
    print("no test ran")
    failed = 1
  print(f"{passed} passed, {failed} failed")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
