"""Limits on the heap, memory that ages, and the caches of idle threads."""
import contextlib
import os
import pathlib
import re

import pytest

from cases import cases_of

SETTINGS = {
    "hard_limit": {"MINITC_HARD_LIMIT": "64M"},
    "soft_limit": {"MINITC_SOFT_LIMIT": "64M"},
    "sparse_calloc": {"MINITC_HUGEPAGES": "0"},
    "sparse_new_blocks": {"MINITC_HUGEPAGES": "0"},
    "offered_memory": {"MINITC_RELEASE": "free"},
    "idle_threads": {"MINITC_THREAD_CACHE_TOTAL": "1M"},
}


@pytest.mark.parametrize("case", cases_of("bounds.c"))
def test_bounds(run_ok, build, case):
  result = run_ok([build / "preload" / "bounds", case], SETTINGS.get(case), timeout=120)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("huge_pages, case", [("0", "peak_is_forgotten"), ("0", "hard_limit"),
                                              ("1", "hard_limit"), ("1", "idle_threads")])
def test_bounds_with_and_without_huge_pages(run_ok, build, case, huge_pages):
  env = {**SETTINGS.get(case, {}), "MINITC_HUGEPAGES": huge_pages}
  result = run_ok([build / "preload" / "bounds", case], env, timeout=120)
  assert (result.stdout, result.stderr) == ("", "")


def test_idle_threads_let_go_though_nobody_is_short(run_ok, build):
  result = run_ok([build / "preload" / "bounds", "idle_threads"], timeout=120)
  assert (result.stdout, result.stderr) == ("", "")


def test_a_hard_limit_makes_operator_new_throw(run_ok, build):
  """The program can react: its handler is called, and catches what a small limit refuses."""
  result = run_ok(["python3", "-S", "-c", """
held = []
try:
  while True: held.append(bytearray(1000000))
except MemoryError:
  count = len(held)
  held.clear()
  print(40 < count < 64, len(bytearray(20000000)))
"""], {"MINITC_HARD_LIMIT": "60M", "PYTHONMALLOC": "malloc"})
  assert result.stdout == "True 20000000\n"


@contextlib.contextmanager
def group_of(limit):
  """A control group below this process's own, with a memory limit: its file for processes."""
  try:
    lines = pathlib.Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
  except OSError:
    pytest.skip("no control groups here")
  groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
  memory = next((path for name, path in groups.items() if "memory" in name.split(",")), None)
  if memory is not None:
    parent, file = pathlib.Path("/sys/fs/cgroup/memory" + memory), "memory.limit_in_bytes"
  else:
    parent, file = pathlib.Path("/sys/fs/cgroup" + groups.get("", "/")), "memory.max"
  folder = parent / f"minitc-test-{os.getpid()}"
  try:
    folder.mkdir()
  except OSError:
    pytest.skip("no control group may be made here")
  try:
    try:
      (folder / file).write_text(str(limit), encoding="ascii")
    except OSError:
      pytest.skip("no limit may be set here")
    yield folder / "cgroup.procs"
  finally:
    folder.rmdir()


def test_a_share_of_the_control_groups_limit(run_ok):
  with group_of(200 << 20) as processes:
    result = run_ok(["/bin/sh", "-c", f"echo $$ > {processes} && exec /bin/true"],
                    {"MINITC_VERBOSE": "1", "MINITC_SOFT_LIMIT": "cgroup:25%",
                     "MINITC_HARD_LIMIT": "cgroup:90%"})
    line = result.stderr.splitlines()[-1]
    limits = dict(re.findall(r"MINITC_(SOFT|HARD)_LIMIT=(\d+)", line))
    assert limits == {"SOFT": str(200 * (1 << 20) // 100 * 25),
                      "HARD": str(200 * (1 << 20) // 100 * 90)}


@pytest.mark.parametrize("share", ["0%", "101%", "90", ""])
def test_a_share_that_is_none(run_ok, share):
  """It is named, and the default holds."""
  result = run_ok(["/bin/true"], {"MINITC_HARD_LIMIT": f"cgroup:{share}"})
  assert result.stderr == (f"libminitc: MINITC_HARD_LIMIT=cgroup:{share}: "
                           "not cgroup:1% to cgroup:100%, ignored\n")
