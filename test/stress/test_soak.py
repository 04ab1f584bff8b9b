"""A few seconds of make soak, and what it decides with."""
import pathlib
import subprocess
import sys

import pytest

from side_by_side import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from run_soak import DRIFT_SAMPLES, Sample, judge  # noqa: E402

MIB = 2**20


def run_soak(program, library):
  argv = [ROOT / "scripts" / "run_soak.py", program, f"it={library}", "--seconds", "4"]
  result = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=300,
                          check=False)
  return result.returncode, result.stdout


def test_short_soak(lib, build):
  status, said = run_soak(build / "stress" / "churn", lib)
  assert (status, said.splitlines()[-1]) == (0, "1 passed, 0 failed"), said


@pytest.mark.parametrize("program, on_library, reason", [
    ("/bin/false", True, "exit status 1"),
    ("/bin/true", True, "no sample"),
    ("churn", False, "expected the library's greeting"),
], ids=["fails", "prints nothing", "not on the library"])
def test_soak_can_fail(lib, build, program, on_library, reason):
  library = lib if on_library else next(pathlib.Path("/lib").glob("*/libc.so.6"))
  status, said = run_soak(build / "stress" / program, library)  # unless it is absolute
  assert status == 1 and reason in said, said
  assert said.splitlines()[-1] == "0 passed, 1 failed"


@pytest.mark.parametrize("overhead_of, seconds, wrong", [
    (lambda t: 50 * MIB, 900, None),
    (lambda t: (40 + 20 * (t % 2)) * MIB, 900, None),
    (lambda t: min(t, 290) / 290 * 100 * MIB, 900, None),  # all in the first third
    (lambda t: 100 * MIB - t / 900 * 80 * MIB, 900, None),
    (lambda t: 50 * MIB + t / 900 * 20 * MIB, 900, "RSS grows"),
    (lambda t: t / 900 * 50 * MIB, 900, "RSS grows"),
    (lambda t: t / 2 * MIB, DRIFT_SAMPLES - 1, None),
    (lambda t: (170 if t == 2 else 50) * MIB, 900, "after 2 s RSS is"),
], ids=["flat", "noisy", "warm-up", "falling", "slow leak", "leak", "too short", "peak"])
def test_judgement_of_memory(overhead_of, seconds, wrong):
  """What is live goes up and down by a third."""
  lives = [(90 + 30 * (t % 7 - 3) // 3) * MIB for t in range(seconds)]
  samples = [Sample(t, live, live + int(overhead_of(t)), 0) for t, live in enumerate(lives)]
  found = list(judge(samples))
  assert len(found) == (wrong is not None) and all(wrong in text for text in found), found
