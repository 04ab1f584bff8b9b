"""Limits on address space and descriptors, failing system calls, signals, small stacks."""
import os
import resource
import signal

import pytest

from cases import cases_of

SECCOMP_CASES = [case for case in cases_of("seccomp.c") if case != "work_without_filter"]


@pytest.mark.parametrize("case", cases_of("limits.c"))
def test_limits(run_ok, build, case):
  result = run_ok([build / "preload" / "limits", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", SECCOMP_CASES)
def test_system_calls_that_fail(run_ok, build, case):
  result = run_ok([build / "preload" / "seccomp", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("signals.c"))
def test_signals_and_stacks(run_ok, build, case):
  result = run_ok([build / "preload" / "signals", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("stepping.c"))
def test_signal_at_every_instruction(run_ok, build, case):
  result = run_ok([build / "preload" / "stepping", case], timeout=180)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("mib", [32, 64, 128, 512])
def test_echo_in_little_address_space(run_plain, lib, mib):
  result = run_plain(["prlimit", f"--as={mib << 20}", "env", f"LD_PRELOAD={lib}", "/bin/echo",
                      "ok"])
  assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_sort_in_little_address_space(run_plain, lib, tmp_path):
  """A program that allocates as much as it may and lives with less: sort sizes its buffer so."""
  expected = run_plain(["sh", "-c", "seq 200000 | cksum"])
  result = run_plain(["sh", "-c", "seq 200000 | tac > numbers; ulimit -v 200000; "
                      f"LD_PRELOAD={lib} sort -n numbers | cksum"], cwd=tmp_path)
  assert (result.stdout, result.stderr) == (expected.stdout, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(run_preloaded, build, closed):
  """Nothing may be opened, so no descriptor of the program's can change its meaning."""
  program = build / "preload" / "limits"
  result = run_preloaded(["sh", "-c", f'exec "$0" few_descriptors {closed}', program])
  assert result.returncode == 0
  assert (result.stdout, result.stderr) == ("", "")


def test_no_free_descriptor_at_all(run_preloaded, build):
  """With 0 to 2 closed and a limit of 3, the loader has the three that it needs and no more."""
  def leave_no_descriptor():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    for fd in range(3):
      os.close(fd)
  result = run_preloaded([build / "preload" / "limits", "few_descriptors"],
                         preexec_fn=leave_no_descriptor)
  assert result.returncode == 0


def test_forbidden_call_is_fatal(run_plain, build):
  """The control: glibc's malloc uses brk, which the filter of only_memory_calls forbids."""
  result = run_plain([build / "preload" / "seccomp", "only_memory_calls"])
  if result.returncode == 77:
    pytest.skip("no seccomp filters here")
  assert result.returncode == -signal.SIGSYS
