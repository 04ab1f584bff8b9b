"""A child can allocate, whatever any thread of its parent was doing."""
import pytest

from cases import cases_of

# 10^4 forks over all, with 32 threads allocating.
STORM = {"child_malloc": 4000, "child_realloc": 2000, "child_new": 2000, "child_thread": 1200,
         "child_fork": 800}


def test_storm_is_as_large_as_promised():
  assert sum(STORM.values()) >= 10000
  assert set(STORM) == set(cases_of("fork_storm.cc"))


@pytest.mark.parametrize("child", STORM)
def test_fork_storm(run_ok, build, child):
  result = run_ok([build / "preload" / "fork_storm", child, STORM[child]], timeout=120)
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
