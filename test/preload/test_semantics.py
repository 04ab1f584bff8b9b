"""glibc 2.36's answers to odd arguments, and what the functions promise about memory and errno."""
import re
import xml.etree.ElementTree as xml

import pytest

from cases import cases_of

# What glibc does not promise or does not do; the rest must hold for it too, or the case is wrong.
OURS_ALONE = {"size_classes", "realloc_same_size_stays", "realloc_grows_in_place",
              "free_leaves_every_byte", "free_leaves_large_bytes", "wrong_sizes",
              "sized_free_after_realloc", "trim_returns_memory", "memory_comes_back"}
# Free pages that are kept must read as they were left; so must objects in every tier.
KEEP_PAGES = {"MINITC_FREE_BOUND": "1G"}
SETTINGS = {"trim_returns_memory": KEEP_PAGES, "free_leaves_large_bytes": KEEP_PAGES}
NEVER_CACHED = {"MINITC_CHECK_FREE": "1"}
PRINTING = {"print_info", "print_stats"}
CASES = [(program, case) for program in ("semantics", "resizing", "reports", "libc_memory")
         for case in cases_of(f"{program}.c") if case not in PRINTING]


@pytest.mark.parametrize("table", cases_of("oracle.c"))
def test_same_as_glibc(run_plain, run_ok, build, table):
  program = build / "preload" / "oracle"
  expected = run_plain([program, table])
  assert expected.returncode == 0 and expected.stdout
  result = run_ok([program, table])
  differing = [(ours, glibc) for ours, glibc
               in zip(result.stdout.splitlines(), expected.stdout.splitlines()) if ours != glibc]
  assert differing == []
  assert len(result.stdout) == len(expected.stdout)
  assert result.stderr == ""


@pytest.mark.parametrize("program, case", CASES)
def test_semantics(run_ok, build, program, case):
  result = run_ok([build / "preload" / program, case], SETTINGS.get(case))
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("program, case", [pair for pair in CASES if pair[0] != "reports"])
def test_semantics_without_thread_caches(run_ok, build, program, case):
  """MINITC_CHECK_FREE=1 sends every free to the central tier, a path of its own."""
  result = run_ok([build / "preload" / program, case],
                  {**SETTINGS.get(case, {}), **NEVER_CACHED})
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("program, case", [pair for pair in CASES if pair[1] not in OURS_ALONE])
def test_case_holds_for_glibc(run_plain, build, program, case):
  """The control: a case that the system's own allocator fails asks for too much."""
  result = run_plain([build / "preload" / program, case])
  assert result.returncode in (0, 77), result.stderr


def test_malloc_info_is_xml(run_ok, build):
  result = run_ok([build / "preload" / "reports", "print_info"])
  root = xml.fromstring(result.stdout)
  assert root.tag == "malloc" and root.get("version")
  assert len(list(root.iter())) > 3
  # Every attribute that looks like a quantity is one.
  for element in root.iter():
    for name, value in element.attrib.items():
      assert value != "" and (name in ("version", "type", "name") or re.fullmatch(r"\d+", value))
  assert result.stderr == ""


def test_malloc_stats_goes_to_stderr(run_ok, build):
  result = run_ok([build / "preload" / "reports", "print_stats"])
  assert result.stdout == ""
  for word in ("live", "thread-cached", "central", "page-heap free", "returned", "metadata",
               "peak"):
    assert word in result.stderr
