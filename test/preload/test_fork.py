"""A child can allocate, whatever any thread of its parent was doing."""
import os

import pytest

from cases import cases_of

# Forks while 32 threads allocate; STORM=50 in the environment makes it 10^5 of them.
STORM = {"child_malloc": 600, "child_realloc": 400, "child_new": 400, "child_thread": 300,
         "child_fork": 300}
TIMES = int(os.environ.get("STORM", "1"))


def test_storm_is_as_large_as_promised():
  assert sum(STORM.values()) >= 2000
  assert set(STORM) == set(cases_of("fork_storm.cc"))


@pytest.mark.parametrize("child", STORM)
def test_fork_storm(run_ok, build, child):
  result = run_ok([build / "preload" / "fork_storm", child, STORM[child] * TIMES],
                  timeout=120 * TIMES)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("fork_handlers.c"))
def test_other_libraries_handlers(run_ok, build, case):
  result = run_ok([build / "preload" / "fork_handlers", case],
                  {"LD_LIBRARY_PATH": str(build / "preload")}, timeout=30)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("forks.c"))
def test_forks(run_ok, build, case):
  result = run_ok([build / "preload" / "forks", case], timeout=20)
  assert (result.stdout, result.stderr) == ("", "")
