#!/usr/bin/python3
"""Runs a program on libminitc.so and says what it cost; `make run` calls this.

  run_workload.py --lib PATH                  a sqlite3 workload in memory, checked
  run_workload.py --lib PATH [--] COMMAND     any command; as one word it is split as a shell would

The command has this script's terminal, input and output, and its exit status becomes the script's
(128 + N when signal N ended it). MINITC_STATS=1 is set unless the caller has set it otherwise.
"""
import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = 200_000
GROUPS = 500


def workload(rows):
  """SQL for the sqlite3 shell."""
  return f"""
.bail on
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, name TEXT, price INTEGER);
INSERT INTO item SELECT value, value * 7919 % {GROUPS}, printf('item %d of group %d', value,
  value * 7919 % {GROUPS}), value * 31 % 10007 FROM generate_series(1, {rows});
CREATE INDEX item_by_group ON item(grp, price);
CREATE INDEX item_by_name ON item(name);
CREATE TABLE summary AS SELECT grp, count(*) AS n, sum(price) AS price, group_concat(name) AS names
  FROM item GROUP BY grp;
UPDATE item SET price = price + 1, name = name || ', changed' WHERE grp % 5 = 0;
DELETE FROM item WHERE grp % 4 = 1;
SELECT count(*) FROM summary;
SELECT count(*), sum(price) FROM item;
SELECT count(*) FROM item WHERE name LIKE '%changed';
PRAGMA integrity_check;
"""


def expected_answers():
  """The same workload by hand, to know that sqlite3 did not merely survive."""
  count = price = changed = 0
  for row in range(1, ROWS + 1):
    group = row * 7919 % GROUPS
    if group % 4 == 1:
      continue
    count += 1
    changed += group % 5 == 0
    price += row * 31 % 10007 + (group % 5 == 0)
  return [str(GROUPS), f"{count}|{price}", str(changed), "ok"]


def parse_arguments(words):
  parser = argparse.ArgumentParser(
      description="Runs a program on libminitc.so and says what it cost.")
  parser.add_argument("--lib", default=str(ROOT / "libminitc.so"), help="the library to preload")
  parser.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND",
                      help="what to run instead of the sqlite3 workload")
  options = parser.parse_args(words)
  if options.command[:1] == ["--"]:
    del options.command[0]
  # One word with blanks is a command line, as in make run CMD='redis-server --port 7777', unless
  # there is a program of that very name. An empty word is what an unset CMD leaves.
  if len(options.command) == 1 and shutil.which(options.command[0]) is None:
    try:
      options.command = shlex.split(options.command[0])
    except ValueError as problem:
      parser.error(f"{options.command[0]}: {problem}")
  options.lib = os.path.abspath(options.lib)
  if not os.path.isfile(options.lib):
    parser.error(f"{options.lib} is missing: run make first")
  if " " in options.lib or ":" in options.lib:
    parser.error(f"{options.lib}: LD_PRELOAD takes no path with a blank or a colon in it")
  return options


def preload_environment(lib):
  env = dict(os.environ)
  others = env.get("LD_PRELOAD")
  env["LD_PRELOAD"] = f"{lib}:{others}" if others else lib
  env.setdefault("MINITC_STATS", "1")
  return env


class Usage:
  """Wall time, processor time and peak memory of one child."""

  def __init__(self, seconds, usage, own_kib):
    self.seconds = seconds
    self.usage = usage
    # Linux counts what the child was before exec, a copy of this script: less can't be seen.
    self.is_hidden = usage.ru_maxrss <= own_kib

  def __str__(self):
    most = "at most " if self.is_hidden else ""
    return (f"time      {self.seconds:.2f} s ({self.usage.ru_utime:.2f} s user, "
            f"{self.usage.ru_stime:.2f} s system)\n"
            f"peak RSS  {most}{self.usage.ru_maxrss / 1024:.1f} MiB")


def own_peak_kib():
  """This script's peak. Its ru_maxrss would not do: that has its parent's peak in it."""
  with open("/proc/self/status", encoding="ascii") as status:
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def run(argv, lib, **streams):
  """Runs argv to its end. Gives its exit status as a shell does, and what it cost."""
  child = None
  early = []  # signals that came before there was a child, or before its number was known here

  def pass_on(number, _frame):
    if child is None:
      early.append(number)
    else:  # not send_signal, which may reap the child and lose its usage
      with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)

  # Ctrl-C and Ctrl-\ reach the child from the terminal: it decides what they mean, and this
  # script waits. Handlers, not SIG_IGN: a child would inherit that. Other signals are passed on.
  for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda *_: None)
  for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, pass_on)
  own_kib = own_peak_kib()
  begin = time.monotonic()
  try:
    child = subprocess.Popen(argv, env=preload_environment(lib), **streams)
  except OSError as problem:
    print(f"{argv[0]}: {problem.strerror}", file=sys.stderr)
    return 127 if isinstance(problem, FileNotFoundError) else 126, None
  for number in early:
    pass_on(number, None)
  _, status, usage = os.wait4(child.pid, 0)
  cost = Usage(time.monotonic() - begin, usage, own_kib)
  code = os.waitstatus_to_exitcode(status)
  child.returncode = code  # reaped above, not by Popen
  return (128 - code if code < 0 else code), cost


def run_command(options):
  """The report comes on the command's own stderr, before the cost."""
  sys.stdout.flush()
  status, cost = run(options.command, options.lib)
  if cost is not None:
    print(f"{options.command[0]}: exit status {status}\n{cost}", file=sys.stderr)
  return status


def run_workload(options):
  sqlite = shutil.which("sqlite3")
  if sqlite is None:
    print("sqlite3 is not installed: apt-get install sqlite3", file=sys.stderr)
    return 127
  with tempfile.TemporaryFile() as script, tempfile.TemporaryFile() as out, \
      tempfile.TemporaryFile() as err:
    script.write(workload(ROWS).encode())
    script.seek(0)
    status, cost = run([sqlite, "-batch", "-init", os.devnull, ":memory:"], options.lib,
                       stdin=script, stdout=out, stderr=err)
    out.seek(0)
    err.seek(0)
    answers = out.read().decode(errors="replace").split()
    report = err.read().decode(errors="replace")
  is_right = status == 0 and answers == expected_answers()
  print(f"sqlite3, {ROWS} rows in memory: {'all answers right' if is_right else 'WRONG'}")
  if not is_right:
    print(f"exit status {status}, answers {answers}, expected {expected_answers()}")
  if cost is not None:
    print(cost)
  print(report, end="")
  return status if is_right or status else 1


def main():
  options = parse_arguments(sys.argv[1:])
  return run_command(options) if options.command else run_workload(options)


if __name__ == "__main__":
  sys.exit(main())
