"""Memory in programs that run for long: what comes back, what a loop costs, how many mappings."""
import pathlib
import re
import shutil

import pytest

from cases import cases_of

SETTINGS = {"mappings_stay_few": {"MINITC_FREE_BOUND": "1"}}


@pytest.mark.parametrize("case", cases_of("memory.c"))
def test_memory(run_ok, build, case):
  result = run_ok([build / "preload" / "memory", case], SETTINGS.get(case), timeout=120)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("exchange.c"))
def test_exchange(run_ok, build, case):
  result = run_ok([build / "preload" / "exchange", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("case, calls_per_round", [("pieces_within_the_bound", 0.1),
                                                   ("large_temporaries", 0.1),
                                                   ("pieces_beyond_the_bound", 8)])
def test_calls_that_return_memory(run_plain, build, lib, tmp_path, case, calls_per_round):
  """Few calls give much back, and always by MADV_DONTNEED, which RSS shows at once."""
  log = tmp_path / "trace"
  result = run_plain(["strace", "-f", "-o", log, "-e", "trace=madvise", "env", f"LD_PRELOAD={lib}",
                      build / "preload" / "memory", case], timeout=120)
  if "PTRACE" in result.stderr or "ptrace" in result.stderr:
    pytest.skip("no tracing here")
  assert result.returncode == 0, result.stderr
  advice = re.findall(r"madvise\(.*(MADV_\w+)", log.read_text())
  return_nothing = ("MADV_HUGEPAGE", "MADV_NOHUGEPAGE", "MADV_POPULATE_READ")
  advice = [a for a in advice if a not in return_nothing]
  assert set(advice) <= {"MADV_DONTNEED"}
  rounds = 4 * 33 if case == "large_temporaries" else 33
  assert len(advice) <= calls_per_round * rounds


def test_reports_are_the_same_on_any_number_of_cpus(run_ok, build):
  """Nothing is sized by the number of CPUs, or placed by the one that a thread runs on. Metadata
  are left out: a heap that crosses a multiple of 4 GiB, as one in some hundred does by chance, has
  more of them."""
  program = [build / "preload" / "semantics", "size_classes"]
  stats = {"MINITC_STATS": "1"}
  cpus = sorted(map(int, re.findall(r"^processor\s*: (\d+)", pathlib.Path("/proc/cpuinfo").read_text(),
                                    re.MULTILINE)))
  said = [run_ok(["taskset", "-c", words, *program], stats).stderr
          for words in ("0-1023", str(cpus[0]), str(cpus[-1]))]
  reports = {re.sub(r"\n.* metadata .*", "", text) for text in said}
  assert len(reports) == 1 and "live" in reports.pop()


@pytest.mark.parametrize("case", ["first_allocations_at_once", "free_only_thread"])
def test_threads_on_one_cpu(run_ok, build, case):
  """One CPU of many: who waits for a lock must let its holder run."""
  run_ok(["taskset", "-c", "0", build / "preload" / "threads", case], timeout=60)
