"""Our own many-threaded program: patterns in every byte of every object (see churn.cc)."""
import pytest

from side_by_side import environment, finish, run_both, start, tail

OPERATIONS = 300_000


def churn(build):
  path = build / "stress" / "churn"
  assert path.exists(), f"{path} is missing: make builds it"
  return path


@pytest.mark.parametrize("threads", [2, 8, 64])
def test_churn_prints_the_same_totals(lib, build, tmp_path, threads):
  _, preloaded = run_both(tmp_path, lib, [churn(build), threads, OPERATIONS, threads + 1],
                          together=False)
  assert b"checksum" in preloaded.out


# Each of these takes objects out of the thread caches, or pages away from the process, far more
# often than the defaults do.
@pytest.mark.parametrize("options", [
    {"MINITC_CHECK_FREE": "1"},
    {"MINITC_THREAD_CACHE_TOTAL": "64K"},
    {"MINITC_FREE_BOUND": "1"},
    {"MINITC_CHECK_FREE": "1", "MINITC_FREE_BOUND": "1"},
], ids=lambda options: "+".join(options))
def test_churn_with_options(lib, build, tmp_path, options):
  # The plain run has the same variables; they mean nothing to it.
  _, preloaded = run_both(tmp_path, lib, [churn(build), 8, OPERATIONS, 5], together=False,
                          **options)
  for name, value in options.items():
    number = 1024 * int(value[:-1]) if value.endswith("K") else int(value)
    assert f"{name}={number} " in preloaded.notes[0].replace("\n", " "), preloaded.notes


@pytest.mark.parametrize("preload", [False, True], ids=["plain", "preloaded"])
def test_churn_notices_one_flipped_bit(lib, build, tmp_path, preload):
  """Without this, the runs above could pass because churn checks nothing."""
  env = environment(tmp_path, lib if preload else None)
  outcome = finish(start([churn(build), 4, 60_000, 1, "sabotage"], env, tmp_path / "run"),
                   tmp_path / "run", 60)
  assert outcome.status == 1, tail(outcome.err)
  assert b"churn: " in outcome.err and b"should be" in outcome.err, tail(outcome.err)
