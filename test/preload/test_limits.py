"""Limits on address space and descriptors, failing system calls, signals, small stacks."""
import os
import resource
import signal

import pytest

from cases import cases_of

SECCOMP_CASES = [case for case in cases_of("seccomp.c")
                 if case not in ("work_without_filter", "wrong_free")]


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


@pytest.mark.parametrize("turn", range(10))
def test_handler_exits_in_a_critical_section(run_ok, build, turn):
  """Without thread caches most of the time is spent there. A report is complete or missing."""
  result = run_ok([build / "preload" / "signals", "handler_exits"],
                  {"MINITC_CHECK_FREE": "1", "MINITC_STATS": "1"})
  lines = result.stderr.splitlines()
  assert all(line.startswith("libminitc: ") for line in lines)
  assert not lines or lines[0].endswith(" heap, in bytes") and "pinned bytes" in result.stderr


@pytest.mark.parametrize("case", cases_of("stepping.c"))
def test_signal_at_every_instruction(run_ok, build, case):
  """Some hundreds of forks where the handler is busy, which take minutes on some virtual machines."""
  result = run_ok([build / "preload" / "stepping", case], timeout=600)
  assert (result.stdout, result.stderr) == ("", "")


def test_stack_use(run_ok, build, is_debug):
  """The bounds that README states, and that the static check of frames adds up to."""
  if is_debug:
    pytest.skip("the limits are the release build's")
  result = run_ok([build / "preload" / "stack_use"])
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


HOLD_ALL = """
held = []
try:
  while True: held.append(bytearray(100000))
except MemoryError: count, held = len(held), None
try: bytearray(1 << 40)
except MemoryError: print(count)
print(len({str(i): [i] for i in range(50000)}))
"""


@pytest.mark.parametrize("mib", [64, 128, 512])
def test_python_in_little_address_space(run_plain, lib, mib):
  """Each refusal is an exception that the program gets over, and little less than without us is to
  be had. Of three starts the best counts: in one of a hundred the heap crosses a multiple of 4 GiB,
  and needs a second leaf of the page map, of 4.5 MiB."""
  def run(*variables):
    result = run_plain(["prlimit", f"--as={mib << 20}", "env", "PYTHONMALLOC=malloc", *variables,
                        "/usr/bin/python3", "-S", "-c", HOLD_ALL])
    assert (result.returncode, result.stderr) == (0, "")
    count, rest = result.stdout.split()
    assert rest == "50000"
    return int(count)
  assert max(run(f"LD_PRELOAD={lib}") for _ in range(3)) >= run() * 3 // 4


def test_shell_lowers_its_own_limit(run_plain, run_preloaded):
  """bash has allocated before, and its children start under the limit."""
  script = ("ulimit -v 200000; a=(); for ((i = 0; i < 20000; i++)); do a+=(x$i); done; "
            "printf '%s\\n' ${a[@]} | sort | cksum; head -c 300M /dev/zero | tail -c 250M | cksum")
  expected = run_plain(["bash", "-c", script])
  result = run_preloaded(["bash", "-c", script])
  assert (result.stdout, result.returncode) == (expected.stdout, expected.returncode)
  assert "libminitc" not in result.stderr and "exhausted" in result.stderr


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


def test_message_in_sandbox(run_preloaded, build):
  """A message needs no call that glibc's own would not need."""
  result = run_preloaded([build / "preload" / "seccomp", "wrong_free"])
  if result.returncode == 77:
    pytest.skip("no seccomp filters here")
  assert result.returncode == -signal.SIGABRT
  assert "interior pointer" in result.stderr


def test_forbidden_call_is_fatal(run_plain, build):
  """The control: glibc's malloc uses brk, which the filter of only_memory_calls forbids."""
  result = run_plain([build / "preload" / "seccomp", "only_memory_calls"])
  if result.returncode == 77:
    pytest.skip("no seccomp filters here")
  assert result.returncode == -signal.SIGSYS
