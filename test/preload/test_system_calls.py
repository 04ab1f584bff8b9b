"""What the library asks of the kernel: little at the start, and memory alone after it."""
import re
import shutil

import pytest

MEMORY_CALLS = {"mmap", "munmap", "mremap", "madvise", "futex"}
CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. )?(\w+)(?:\(| resumed)")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture
def trace(run_plain, tmp_path):
  """The lines of strace for a command, in the order of the calls."""
  def run(argv, preload=None, *options):
    log = tmp_path / "trace"
    inner = ["env", f"LD_PRELOAD={preload}"] if preload else ["env"]
    result = run_plain(["strace", "-f", "-o", log, *options, *inner, *argv])
    if "PTRACE" in result.stderr or "ptrace" in result.stderr:
      pytest.skip("no tracing here")
    assert result.returncode == 0, result.stderr
    lines = log.read_text(errors="replace").splitlines()
    # env itself, which runs on glibc, is not of interest.
    last_exec = max(i for i, line in enumerate(lines) if "execve(" in line)
    return lines[last_exec + 1:]
  return run


def names(lines):
  return [match[1] for match in map(CALL.match, lines) if match]


@pytest.mark.parametrize("env", ["MINITC_STATS=0", "MINITC_CHECK_FREE=1", "MINITC_FREE_BOUND=1"])
def test_only_memory_calls_after_the_start(trace, build, lib, env):
  lines = trace([build / "preload" / "system_calls"], f"{lib}", "-E", env)
  marks = [i for i, line in enumerate(lines) if "write(-1" in line]
  assert len(marks) == 2
  # The mark itself may be shown in two parts.
  between = names(line for line in lines[marks[0] + 1:marks[1]] if "<... write resumed" not in line)
  assert len(between) > 20
  assert set(between) - MEMORY_CALLS == set()
  assert {"mmap", "madvise"} <= set(between)


def test_start_opens_nothing_but_the_library(trace, lib):
  def opened(lines):
    return {path for line in lines for path in re.findall(r'openat\(.*?"(.*?)".* = \d', line)}
  assert opened(trace(["/bin/true"], lib)) - opened(trace(["/bin/true"])) == {lib}


def test_start_is_short(trace, build, lib):
  """The loader's work for any other library, and at most 7 calls of the library's own: two are
  fcntl, to look whether stderr is open, and sched_getaffinity, to count processors."""
  empty = names(trace(["/bin/true"], build / "preload" / "lib_static_tls.so"))
  preloaded = names(trace(["/bin/true"], lib))
  loading = {"openat", "read", "pread64", "newfstatat", "fstat", "mmap", "mprotect", "munmap",
             "close", "madvise", "access"}
  for once in "fcntl", "sched_getaffinity":
    assert preloaded.count(once) == empty.count(once) + 1
    preloaded.remove(once)
  extra = {name for name in set(preloaded) if preloaded.count(name) > empty.count(name)}
  assert extra <= loading
  assert len(preloaded) - len(empty) <= 5


def test_start_costs_little(run_plain, build, lib):
  """What each short-lived child pays: 0.3 ms, or 0.2 and twenty page faults, which may be twenty
  times as dear as elsewhere. The least of six, since other load adds to it, or to what is taken off
  it."""
  costs = []
  for _ in range(6):
    result = run_plain([build / "preload" / "start_cost", lib, "100"])
    assert result.returncode == 0, result.stderr
    costs.append([int(word) for word in result.stdout.split()])
  wall_us, cpu_us, rss_kib, faults_us = map(min, zip(*costs))
  most_us = max(300, 200 + faults_us)
  assert wall_us <= most_us and cpu_us <= most_us and rss_kib <= 300, costs
