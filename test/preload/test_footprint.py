"""What a process claims of the system: the charge of a kernel that promises no more than it has,
its largest resident set, its address space, core files."""
import collections
import re
import resource
import signal
import subprocess

import pytest

from cases import cases_of

MIB = 1 << 20
ARGUMENTS = {"phases": ["64"]}


@pytest.mark.parametrize("case", [case for case in cases_of("footprint.c") if case != "dump_core"])
def test_footprint(run_ok, build, case):
  result = run_ok([build / "preload" / "footprint", case, *ARGUMENTS.get(case, [])])
  assert (result.stdout, result.stderr) == ("", "")


def test_little_address_space(run_plain, run_ok):
  """Of a program that allocates next to nothing. In one start of some thousand its heap crosses a
  multiple of 4 GiB, and needs a second leaf of the page map, of 4.5 MiB."""
  def vm_peak(run):
    status = run(["grep", "VmPeak", "/proc/self/status"]).stdout
    return int(re.search(r"(\d+) kB", status)[1]) << 10
  assert min(vm_peak(run_ok) for _ in range(3)) - vm_peak(run_plain) < 8 * MIB


def library_pages(run_ok):
  """Of a program that allocates a dozen objects: what is resident of the library, in KiB, by what
  the mapping allows."""
  resident, end = collections.Counter(), None
  mapping = r"^(\w+)-(\w+) (\S+) \S+ \S+ \S+ *(.*)\n(?:\w+:.*\n)*?Rss: +(\d+) kB$"
  smaps = run_ok(["sh", "-c", 'while read -r x; do echo "$x"; done < /proc/self/smaps']).stdout
  for begin, its_end, access, name, kib in re.findall(mapping, smaps, re.MULTILINE):
    if "libminitc" in name or (not name and begin == end):
      end = its_end
      resident[access[:3]] += int(kib)
  return resident


def test_few_pages_of_its_own(run_ok):
  """What a size class needs is not written to before its first object."""
  assert 0 < library_pages(run_ok)["rw-"] <= 48


def test_few_pages_of_its_file(run_ok, is_debug):
  """What such a program needs of the library is in the 64 KiB that the kernel maps at a time. In
  one start of 34 the border of two page tables lies in between, and it maps twice as much."""
  if is_debug:
    pytest.skip("the code is longer with all asserts")
  assert 0 < min(library_pages(run_ok)["r-x"] for _ in range(4)) <= 64


def dumped_by_kernel(run_plain, lib, words, folder):
  """The core file that the kernel writes when the program is ended by a signal."""
  with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as stream:
    pattern = stream.read().strip()
  hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
  if pattern.startswith(("|", "/")) or hard != resource.RLIM_INFINITY:
    pytest.skip(f"core files go to {pattern}, and may have {hard} bytes")
  result = run_plain(words, {"LD_PRELOAD": lib}, cwd=folder, preexec_fn=lambda: resource.setrlimit(
      resource.RLIMIT_CORE, (hard, hard)))
  assert result.returncode == -signal.SIGSEGV
  (core,) = folder.glob(re.sub("%.", "*", pattern) + "*")
  return result.stdout, core


def dumped_by_gdb(run_plain, lib, words, folder):
  """The same file as gdb writes it, with zeros for what has no memory."""
  script = ["set startup-with-shell off", f"set environment LD_PRELOAD {lib}", "run",
            f"generate-core-file {folder / 'written'}", "kill"]
  commands = [word for command in script for word in ("-ex", command)]
  result = run_plain(["gdb", "-nx", "-batch", *commands, "--args", *words], timeout=300)
  subprocess.run(["cp", "--sparse=always", folder / "written", folder / "sparse"], check=True)
  return result.stdout, folder / "sparse"


@pytest.mark.parametrize("dump", [dumped_by_kernel, dumped_by_gdb])
@pytest.mark.parametrize("percent", [0, 90])
def test_core_file(run_plain, lib, build, tmp_path, dump, percent):
  """The core file of a process that has freed so much of 100 MiB takes no more of the disk than the
  process has memory, and is no longer than what it had at its peak and a fifth."""
  said, core = dump(run_plain, lib, [build / "preload" / "footprint", "dump_core", "100", percent],
                    tmp_path)
  rss, charge = map(int, re.search(r"^(\d+) (\d+)$", said, re.MULTILINE).groups())
  stored = core.stat().st_blocks * 512
  kept = (100 - percent) * MIB
  assert kept <= stored <= rss * 21 // 20
  # What was freed is gone but for what may stay committed; sizes are rounded up by an eighth.
  assert stored <= kept * 9 // 8 + 40 * MIB
  assert core.stat().st_size <= charge + 4 * MIB
  assert charge <= 100 * MIB * 9 // 8 * 6 // 5 + 8 * MIB
