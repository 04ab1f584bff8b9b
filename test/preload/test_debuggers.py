"""gdb calls our functions wherever it stops the program; heaptrack sees all that a program
allocates from us."""
import re

import pytest


@pytest.fixture
def debug(run_plain, build, lib):
  """Runs gdb's commands on the program of stop_here(); what gdb and the program print."""
  def run(*commands):
    # gdb itself, and the shell that it would start the program by, are not of interest.
    script = ["set confirm off", "set startup-with-shell off", "set breakpoint pending off",
              f"set environment LD_PRELOAD {lib}", *commands]
    words = [word for command in script for word in ("-ex", command)]
    result = run_plain(["gdb", "-nx", "-batch", *words, "--args", build / "preload" / "observed",
                        "stop"], {"LD_PRELOAD": build / "preload" / "lib_extended_state.so"},
                       timeout=120)
    assert "done\n" in result.stdout and "exited normally" in result.stdout, (
        result.stdout + result.stderr)
    return result
  return run


def values(result):
  """What gdb's print commands said, in order."""
  return re.findall(r"^\$\d+ = (.*)$", result.stdout, re.MULTILINE)


def test_gdb_runs_the_program(debug):
  debug("run")


def test_gdb_calls_functions(debug):
  """What README names for a look at a program that runs."""
  result = debug("break stop_here", "run",
                 "print ((void*(*)(unsigned long))malloc)(1) != 0",
                 "print ((unsigned long(*)(void*))malloc_usable_size)(object)",
                 "call (void)malloc_stats()",
                 "call ((void(*)(void*))free)(((void*(*)(unsigned long))malloc)(300000))",
                 "print ((int(*)(unsigned long))malloc_trim)(0)", "continue")
  assert values(result) == ["1", "112", "1"]
  assert "libminitc: live " in result.stderr


def test_gdb_stops_in_malloc(debug):
  result = debug("break stop_here", "run", "break malloc", "continue", "backtrace 2", "delete",
                 "continue")
  assert re.search(r"^#0 .*malloc \(bytes=20000\)", result.stdout, re.MULTILINE)
  assert re.search(r"^#1 .* in stop \(", result.stdout, re.MULTILINE)


def test_gdb_calls_functions_under_our_locks(debug):
  """While a run is looked for the page heap's lock is held: calls are served by a reserve, whose
  blocks have the very size that was asked for."""
  result = debug("break stop_here", "run", "break minitc::PageHeap::take_locked", "continue",
                 "backtrace", "delete",
                 "set $small = ((void*(*)(unsigned long))malloc)(100)",
                 "set $large = ((void*(*)(unsigned long))malloc)(1000000)",
                 "print (int)($small != 0)",
                 "print ((unsigned long(*)(void*))malloc_usable_size)($large)",
                 "call ((void(*)(void*))free)($large)", "call ((void(*)(void*))free)($small)",
                 "continue")
  assert re.search(r"^#0 .*PageHeap::take_locked", result.stdout, re.MULTILINE)
  assert values(result) == ["1", "1000000"]


@pytest.fixture
def heaptrack(run_plain, build, lib, tmp_path):
  """Records observed.c by the heaptrack command and returns what heaptrack_print counts."""
  def run(preload):
    record = tmp_path / f"record{len(preload)}"
    env = {"LD_PRELOAD": preload} if preload else {}
    result = run_plain(["heaptrack", "-o", record, build / "preload" / "observed", "leak"],
                       {**env, "MINITC_STATS": "1"}, timeout=120)
    assert "\ndone\n" in result.stdout, result.stdout + result.stderr
    assert ("libminitc: live " in result.stderr) == bool(preload)
    report = run_plain(["heaptrack_print", "-l", "1", "-f", f"{record}.zst"]).stdout
    calls = re.search(r"^calls to allocation functions: (\d+)", report, re.MULTILINE)
    leaked = re.search(r"^(\S+) leaked over 1 calls from\s+forget$", report, re.MULTILINE)
    assert leaked[1] == "1.23K"
    return int(calls[1])
  return run


def test_heaptrack(heaptrack, lib):
  """heaptrack puts itself in front of what LD_PRELOAD says, and sees what it sees without us."""
  assert heaptrack(lib) == heaptrack("") > 1000
