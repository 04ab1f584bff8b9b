"""scripts/run_workload.py, which `make run` calls: what it shows and what it passes through."""
import os
import re
import signal

import pytest

from side_by_side import ROOT, environment, finish, start, tail, tool


@pytest.fixture(name="begin")
def fixture_begin(lib, tmp_path):
  def begin(*words, stdin=None, **env):
    argv = [tool("python3", "python3"), ROOT / "scripts" / "run_workload.py", "--lib", lib, *words]
    return start(argv, environment(tmp_path, **env), tmp_path, stdin)
  return begin


@pytest.fixture(name="run")
def fixture_run(begin, tmp_path):
  def run(*words, **more):
    return finish(begin(*words, **more), tmp_path, 100)
  return run


def test_workload_is_checked_and_reported(run):
  tool("sqlite3", "sqlite3")
  outcome = run()
  out = outcome.out.decode()
  assert outcome.status == 0, out + tail(outcome.err)
  assert out.startswith("sqlite3, 200000 rows in memory: all answers right\n")
  seconds = float(re.search(r"^time +([\d.]+) s", out, re.MULTILINE).group(1))
  peak = float(re.search(r"^peak RSS +([\d.]+) MiB$", out, re.MULTILINE).group(1))
  assert 0.05 < seconds < 100 and 20 < peak < 500, out
  assert "live" in out[out.index("peak RSS"):], f"no report after the figures:\n{out}"


@pytest.mark.parametrize("words", [["bash", "-c", "exit 3"], ["--", "bash", "-c", "exit 3"],
                                   ["bash -c 'exit 3'"], ["--", "bash -c 'exit 3'"]], ids=" ".join)
def test_exit_status_is_the_commands(run, words):
  outcome = run(*words)
  assert outcome.status == 3
  assert b"exit status 3" in outcome.err and outcome.out == b""
  assert any("live" in line for line in (*outcome.notes, *outcome.err.decode().splitlines())), (
      "no report of the library")


def test_peak_is_the_commands_own(run):
  """One number for a program that is large, and a bound for one smaller than the script."""
  python = tool("/usr/bin/python3", "python3")
  large = run("--", python, "-c", "x = b'x' * (200 << 20)").err.decode()
  peak = float(re.search(r"^peak RSS +([\d.]+) MiB$", large, re.MULTILINE).group(1))
  assert 200 < peak < 260, large
  small = run("--", "true").err.decode()
  bound = float(re.search(r"^peak RSS +at most ([\d.]+) MiB$", small, re.MULTILINE).group(1))
  assert bound < 60, small


def test_killed_command_and_missing_command(run):
  assert run("sh", "-c", "kill -KILL $$").status == 128 + signal.SIGKILL
  missing = run("no-such-program", "-x")
  assert missing.status == 127 and b"no-such-program: " in missing.err


def test_stdin_and_options_reach_the_command(run, lib, tmp_path):
  source = tmp_path / "input"
  source.write_text("one\ntwo\n")
  outcome = run("--", "cat", "-n", stdin=source)
  assert outcome.out.split() == [b"1", b"one", b"2", b"two"]
  shown = run("--", "sh", "-c", 'echo "$LD_PRELOAD $MINITC_STATS"')
  assert shown.out.decode().split() == [lib, "1"]
  silent = run("--", "true", MINITC_STATS="0")
  assert b"live" not in silent.err and not silent.notes


@pytest.mark.parametrize("to_group", [False, True], ids=["to the script", "to both, as Ctrl-C is"])
def test_signals_reach_the_command(begin, tmp_path, to_group):
  """The command cleans up and ends when told to; the script waits for it and says what it cost."""
  body = ("trap 'echo cleaned; exit 5' INT TERM; echo ready; "
          "i=0; while [ $i -lt 200 ]; do sleep 0.05; i=$((i + 1)); done")
  process = begin("--", "sh", "-c", body)
  assert process.stdout.readline() == b"ready\n"
  if to_group:
    os.killpg(process.pid, signal.SIGINT)
  else:
    process.send_signal(signal.SIGTERM)
  outcome = finish(process, tmp_path, 60)
  assert outcome.out == b"cleaned\n", outcome
  assert outcome.status == 5 and b"peak RSS" in outcome.err


# The script, but a signal comes as soon as there is a child, before the script can know its number.
EARLY_SIGNAL = """
import os, runpy, signal, subprocess, sys

class Popen(subprocess.Popen):
  def __init__(self, *args, **more):
    super().__init__(*args, **more)
    os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Popen
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_signal_before_the_child_is_known_reaches_it(lib, tmp_path):
  argv = [tool("python3", "python3"), "-c", EARLY_SIGNAL, ROOT / "scripts" / "run_workload.py",
          "--lib", lib, "--", "sleep", "5"]
  outcome = finish(start(argv, environment(tmp_path), tmp_path), tmp_path, 60)
  assert outcome.status == 128 + signal.SIGTERM, outcome


def test_missing_library_is_named(begin, tmp_path):
  # The last --lib counts.
  outcome = finish(begin("--lib", "/nowhere/libminitc.so", "true"), tmp_path, 60)
  assert outcome.status == 2 and b"/nowhere/libminitc.so is missing" in outcome.err
