"""The environment variables: what each prints and does, and silence where nothing was asked for."""
import re

import pytest

WORDS = ["live", "thread-cached", "central", "page-heap free", "returned", "metadata", "peak"]


def quantities(report):
  """The report's totals, by name."""
  rows = re.findall(r"^libminitc: +([a-z][a-z -]*[a-z]) +(\d+)  ", report, re.MULTILINE)
  return {name: int(value) for name, value in rows}


def class_rows(report):
  """The rows of the size-class table, as numbers."""
  rows = re.findall(r"^libminitc:((?: +\d+){8})$", report, re.MULTILINE)
  return [tuple(map(int, row.split())) for row in rows]


@pytest.mark.parametrize("command", [["/bin/true"], ["/bin/echo", "-n"], ["sh", "-c", ":"]],
                         ids=lambda words: words[0])
def test_silence(run_ok, command):
  result = run_ok(command)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("variable, complaint", [
    ("MINITC_FOO=1", "MINITC_FOO: unknown option, ignored"),
    ("MINITC_=1", "MINITC_: unknown option, ignored"),
    ("MINITC_STATS2=1", "MINITC_STATS2: unknown option, ignored"),
    ("MINITC_STAT=1", "MINITC_STAT: unknown option, ignored"),
    ("MINITC_stats=1", "MINITC_stats: unknown option, ignored"),
    ("MINITC_STATS=abc", "MINITC_STATS=abc: not a number, ignored"),
    ("MINITC_STATS=", "MINITC_STATS=: not a number, ignored"),
    ("MINITC_STATS=-1", "MINITC_STATS=-1: not a number, ignored"),
    ("MINITC_STATS=1K", "MINITC_STATS=1K: not a number, ignored"),
    ("MINITC_STATS=1 ", "MINITC_STATS=1 : not a number, ignored"),
    ("MINITC_STATS=1\n2", "MINITC_STATS=1?2: not a number, ignored"),
    ("MINITC_A\nB=1", "MINITC_A?B: unknown option, ignored"),
    ("MINITC_STATS=7", "MINITC_STATS=7: out of range 0..1, ignored"),
    ("MINITC_CHECK_FREE=2", "MINITC_CHECK_FREE=2: out of range 0..1, ignored"),
    ("MINITC_VERBOSE=yes", "MINITC_VERBOSE=yes: not a number, ignored"),
    ("MINITC_KEEP_DEEPBIND=2", "MINITC_KEEP_DEEPBIND=2: out of range 0..1, ignored"),
    ("MINITC_ON_BAD_FREE=", "MINITC_ON_BAD_FREE=: not one of abort|ignore, ignored"),
    ("MINITC_ON_BAD_FREE=1", "MINITC_ON_BAD_FREE=1: not one of abort|ignore, ignored"),
    ("MINITC_ON_BAD_FREE=Abort", "MINITC_ON_BAD_FREE=Abort: not one of abort|ignore, ignored"),
    ("MINITC_ON_BAD_FREE=ignored", "MINITC_ON_BAD_FREE=ignored: not one of abort|ignore, ignored"),
    ("MINITC_FREE_BOUND=1T", "MINITC_FREE_BOUND=1T: not a number, ignored"),
    ("MINITC_FREE_BOUND=1MB", "MINITC_FREE_BOUND=1MB: not a number, ignored"),
    ("MINITC_FREE_BOUND=K", "MINITC_FREE_BOUND=K: not a number, ignored"),
    ("MINITC_FREE_BOUND=1.5G", "MINITC_FREE_BOUND=1.5G: not a number, ignored"),
    ("MINITC_FREE_BOUND=100000G",
     "MINITC_FREE_BOUND=100000G: out of range 0..70368744177664, ignored"),
    ("MINITC_THREAD_CACHE_TOTAL=2000G",
     "MINITC_THREAD_CACHE_TOTAL=2000G: out of range 0..1099511627776, ignored")])
def test_complaint(run_ok, variable, complaint):
  name, value = variable.split("=")
  result = run_ok(["/bin/true"], {name: value})
  assert (result.stdout, result.stderr) == ("", f"libminitc: {complaint}\n")


@pytest.mark.parametrize("value", ["99999999999999999999", "18446744073709551616",
                                   "17179869184G", "99999999999999999999K"])
def test_number_too_large(run_ok, value):
  result = run_ok(["/bin/true"], {"MINITC_FREE_BOUND": value})
  assert re.fullmatch(rf"libminitc: MINITC_FREE_BOUND={value}: (not a number|out of range .*), "
                      r"ignored\n", result.stderr)


def test_each_complaint_has_a_line(run_ok):
  result = run_ok(["/bin/true"], {"MINITC_A": "1", "MINITC_STATS": "x", "MINITC_B": "2"})
  assert sorted(result.stderr.splitlines()) == [
      "libminitc: MINITC_A: unknown option, ignored",
      "libminitc: MINITC_B: unknown option, ignored",
      "libminitc: MINITC_STATS=x: not a number, ignored"]


def test_long_values_do_no_harm(run_ok):
  result = run_ok(["/bin/true"], {"MINITC_STATS": "9" * 5000, "MINITC_" + "N" * 5000: "1"})
  assert len(result.stderr.splitlines()) == 2
  assert all(line.startswith("libminitc: MINITC_") for line in result.stderr.splitlines())


@pytest.mark.parametrize("setting, shown", [
    ({}, ["MINITC_CHECK_FREE=0", "MINITC_ON_BAD_FREE=abort", "MINITC_KEEP_DEEPBIND=0"]),
    ({"MINITC_CHECK_FREE": "1"}, ["MINITC_CHECK_FREE=1"]),
    ({"MINITC_ON_BAD_FREE": "ignore"}, ["MINITC_ON_BAD_FREE=ignore"]),
    ({"MINITC_KEEP_DEEPBIND": "1"}, ["MINITC_KEEP_DEEPBIND=1"]),
    ({"MINITC_FREE_BOUND": "3M"}, ["MINITC_FREE_BOUND=3145728"]),
    ({"MINITC_THREAD_CACHE_TOTAL": "64K"}, ["MINITC_THREAD_CACHE_TOTAL=65536"])])
def test_banner(run_ok, setting, shown):
  result = run_ok(["/bin/true"], {"MINITC_VERBOSE": "1", **setting})
  assert result.stdout == "" and result.stderr.count("\n") == 1
  assert re.match(r"libminitc: .*\d+\.\d+", result.stderr)
  for word in ["MINITC_VERBOSE=1", *shown]:
    assert word in result.stderr.split()


def test_report(run_ok, build):
  result = run_ok([build / "preload" / "resizing", "realloc_keeps_usable_bytes"],
                  {"MINITC_STATS": "1"})
  assert result.stdout == ""
  assert all(line.startswith("libminitc: ") for line in result.stderr.splitlines())
  totals = quantities(result.stderr)
  assert set(WORDS) <= set(totals)
  assert totals["metadata"] > 0
  assert totals["peak"] >= 1 << 20
  assert totals["live"] <= totals["peak"]
  parts = ["live", "thread-cached", "central", "page-heap free", "returned"]
  assert totals["mapped"] == sum(totals[part] for part in parts)


def test_report_has_a_row_per_class(run_ok, build):
  result = run_ok([build / "preload" / "reports", "print_stats"])
  rows = class_rows(result.stderr)
  # 100 live objects of 1 to 9901 bytes are in at least 30 classes.
  assert len(rows) >= 30
  sizes = [row[0] for row in rows]
  assert sizes == sorted(set(sizes))
  for size, spans, live, _cached, central, live_bytes, pinned_bytes, pinning in rows:
    assert spans >= 1 and live_bytes == size * live
    assert pinned_bytes <= central * size and (pinned_bytes == 0) == (pinning == 0)
  totals = quantities(result.stderr)
  assert sum(row[2] for row in rows) >= 100
  assert sum(row[5] for row in rows) == totals["live"]
  assert sum(row[0] * row[3] for row in rows) == totals["thread-cached"]


def test_report_of_many_threads_is_one(run_ok, build):
  result = run_ok([build / "preload" / "threads", "exit_while_others_allocate"],
                  {"MINITC_STATS": "1"})
  assert result.stderr.count("size class") == 1


def test_no_report_from_children_that_only_exec(run_ok):
  """The shell's forked children end by exec: each program prints one report, no more."""
  result = run_ok(["bash", "-c", "/bin/true; /bin/true; :"], {"MINITC_STATS": "1"})
  assert result.stderr.count("size class") == 3


@pytest.mark.parametrize("cap, threads", [(256 << 10, 100), (4 << 20, 100), (None, 100),
                                          (None, 4000)],
                         ids=["256K", "4M", "default", "many threads"])
def test_thread_caches_stay_under_their_cap(run_ok, build, cap, threads):
  env = {} if cap is None else {"MINITC_THREAD_CACHE_TOTAL": str(cap)}
  result = run_ok([build / "preload" / "cache_total", threads], env)
  assert quantities(result.stderr)["thread-cached"] <= (32 << 20 if cap is None else cap)


def test_check_free_caches_nothing(run_ok, build):
  result = run_ok([build / "preload" / "cache_total", "10"], {"MINITC_CHECK_FREE": "1"})
  assert quantities(result.stderr)["thread-cached"] == 0


@pytest.mark.parametrize("bound", ["1", "1M", "1G"])
def test_free_bound(run_ok, build, bound):
  """What stays committed is under the bound, give or take a page; with a large one, most stays."""
  result = run_ok([build / "preload" / "semantics", "errno_of_every_class"],
                  {"MINITC_FREE_BOUND": bound, "MINITC_STATS": "1"})
  kept = quantities(result.stderr)["page-heap free"]
  limit = {"1": 8192, "1M": 1 << 20, "1G": 1 << 30}[bound]
  assert kept <= limit
  if bound == "1G":
    assert kept > 1 << 20 and quantities(result.stderr)["returned"] < kept


@pytest.mark.parametrize("env", [
    {"MINITC_THREAD_CACHE_TOTAL": "0"}, {"MINITC_THREAD_CACHE_TOTAL": "1"},
    {"MINITC_THREAD_CACHE_TOTAL": "64K"}, {"MINITC_THREAD_CACHE_TOTAL": "1024G"},
    {"MINITC_FREE_BOUND": "1"}, {"MINITC_FREE_BOUND": "65536G"},
    {"MINITC_CHECK_FREE": "1", "MINITC_FREE_BOUND": "1"}], ids=str)
@pytest.mark.parametrize("program, case", [
    ("semantics", "calloc_of_recycled_pages"), ("semantics", "errno_over_thread_exit"),
    ("resizing", "realloc_keeps_usable_bytes")])
def test_extreme_values_work(run_ok, build, env, program, case):
  result = run_ok([build / "preload" / program, case], env)
  assert (result.stdout, result.stderr) == ("", "")
