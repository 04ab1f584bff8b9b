"""The benchmark: its programs run and check themselves, what it measures is true, and its figures
are what they say. Nothing here looks at how fast anything was."""
import json
import os
import subprocess
import sys

import pytest

from side_by_side import ROOT, environment, finish, start, tail, tool

sys.path.insert(0, str(ROOT / "scripts"))
import bench  # noqa: E402
import bench_contestants  # noqa: E402
import bench_memory  # noqa: E402
import bench_memory_report  # noqa: E402
import bench_memory_workloads  # noqa: E402
import bench_report  # noqa: E402
import bench_workloads  # noqa: E402
import bench_watch  # noqa: E402
from bench_contestants import Contestant  # noqa: E402
from bench_watch import Sample  # noqa: E402
from bench_workloads import BadRun, Workload  # noqa: E402

PYTHON = "/usr/bin/python3"
OWN = [w for w in bench_workloads.all_workloads() if w.is_own and w.is_scaled]


@pytest.fixture(name="setup")
def fixture_setup(build, tmp_path):
  return bench_workloads.Setup(build / "bench", tmp_path, 0.01)


@pytest.fixture(name="run_script")
def fixture_run_script(lib, build, tmp_path):
  """Runs one of the benchmark's scripts; its options may replace those given here."""
  def run(script, *words, path=None):
    env = environment(tmp_path)
    if path is not None:
      env["PATH"] = f"{path}:{env['PATH']}"
    argv = [PYTHON, ROOT / "scripts" / script, "--lib", lib, "--programs", build / "bench",
            "--contestants", "glibc,minitc", *words]
    return finish(start(argv, env, tmp_path), tmp_path, 300)
  return run


@pytest.mark.parametrize("workload", OWN, ids=lambda workload: workload.name)
def test_program_computes_the_same(setup, lib, workload):
  plain, ours = (bench_workloads.run(setup, workload, contestant)
                 for contestant in (Contestant("glibc", None), Contestant("minitc", lib)))
  assert plain["digest"] == ours["digest"]
  assert ours["wall_s"] > 0 and ours["faults"] > 0 and ours["peak_kib"] > 500
  assert plain["figures"].keys() == ours["figures"].keys() == {
      name for name, _ in workload.figures.values()}


@pytest.mark.parametrize("words", [["--nonsense=1"], ["stray"], ["--count=many"], ["--count="],
                                   ["--threads=0"], ["--call=free"], ["--scale=0"]], ids=" ".join)
def test_programs_refuse_bad_options(run_plain, build, words):
  result = run_plain([build / "bench" / "ring", "--count=10", *words])
  assert result.returncode == 2 and result.stdout == "", result
  assert words[0].lstrip("-").split("=")[0] in result.stderr


@pytest.mark.parametrize("huge_pages", ["0", "1", "auto"])
def test_hash_table_finds_what_it_was_given(run_plain, run_ok, build, huge_pages):
  words = [build / "bench" / "hash_table", "--mib=16", "--lookups=100000"]
  expected = run_plain(words).stdout
  assert "checksum=" in expected
  assert run_ok(words, {"MINITC_HUGEPAGES": huge_pages}).stdout == expected


def test_all_ways_to_serve_requests_compute_the_same(run_plain, run_ok, build):
  program = build / "bench" / "requests"
  words = ["--count=500", "--way=malloc"]
  expected = run_plain([program, *words]).stdout
  assert "checksum=" in expected
  for way in ["pool", "pool-inline", "bump", "bump-inline"]:
    assert run_ok([program, words[0], f"--way={way}"]).stdout == expected
  result = run_plain([program, "--way=pool"])
  assert (result.returncode, result.stderr) == (1, "requests: --way=pool: not running on libminitc\n")


def test_bench_pool(run_script, is_debug, tmp_path):
  result = run_script("bench_pool.py", "--work", tmp_path, "-n", "1", "--scale", "0.02", "--json",
                      tmp_path / "result.json")
  assert result.status == 0, result.err
  rows = json.loads((tmp_path / "result.json").read_text())
  assert set(rows) == {"glibc malloc", "minitc malloc", "minitc pool", "minitc pool-inline",
                       "minitc bump", "minitc bump-inline"}
  assert rows["minitc pool"]["per pool"] == 1
  # Counts are the same in every run: a pool needs far fewer instructions than malloc and free, and
  # at most a tenth more than a bump. In the debug build every block takes the slow path.
  counts = {way: rows[f"minitc {way}"]["instructions"]
            for way in ("pool", "pool-inline", "malloc", "bump", "bump-inline")}
  assert is_debug or counts["pool-inline"] < counts["pool"] < counts["malloc"] / 1.5, counts
  assert is_debug or counts["pool"] <= 1.1 * counts["bump"], counts
  assert is_debug or counts["pool-inline"] <= 1.1 * counts["bump-inline"], counts
  result = run_script("bench_pool.py", "--work", tmp_path, "--contestants", "glibc")
  assert (result.status, result.err) == (
      2, b"bench_pool.py: pools are minitc's: it has to take part\n")


def measure(run_plain, build, folder, *words):
  result = run_plain([build / "bench" / "measure", folder / "out", *words])
  return result, json.loads((folder / "out").read_text()) if (folder / "out").exists() else None


def test_measured_figures_are_true(run_plain, build, tmp_path):
  spin = "import time\nwhile time.process_time() < 0.5: pass\nx = b'x' * (100 << 20)"
  _, cost = measure(run_plain, build, tmp_path, PYTHON, "-c", spin)
  assert cost["status"] == 0
  assert 0.5 <= cost["user_s"] + cost["system_s"] <= cost["wall_s"] + 0.2, cost
  assert 100 << 10 < cost["peak_kib"] < 140 << 10, cost
  assert cost["minor_faults"] > 300, cost
  _, cost = measure(run_plain, build, tmp_path, "sleep", "0.3")
  assert cost["wall_s"] >= 0.3 and cost["user_s"] + cost["system_s"] < 0.2, cost


def test_peak_is_not_the_parents(run_plain, build, tmp_path):
  """Linux lets a child begin with its parent's peak; this test itself is larger than the child."""
  ballast = bytearray(os.urandom(4096) * (16 << 10))
  _, cost = measure(run_plain, build, tmp_path, "true")
  assert 200 < cost["peak_kib"] < 4096 < len(ballast) >> 10, cost


def test_measure_passes_the_status_on(run_plain, build, tmp_path):
  for script, status in (("exit 3", 3), ("kill -KILL $$", 137)):
    result, cost = measure(run_plain, build, tmp_path, "sh", "-c", script)
    assert result.returncode == status == cost["status"]
  assert measure(run_plain, build, tmp_path, "no-such-program")[0].returncode == 127
  assert measure(run_plain, build, tmp_path / "no" / "folder", "true")[0].returncode == 125


def test_contestants_are_preloaded(setup, lib):
  grep = Workload("maps", ("grep", "-c", os.path.basename(lib), "/proc/self/maps"))
  bench_workloads.run(setup, grep, Contestant("minitc", lib))
  with pytest.raises(BadRun, match="status 1"):
    bench_workloads.run(setup, grep, Contestant("glibc", None))


def test_contestants_take_turns(monkeypatch):
  order = []
  monkeypatch.setattr(bench_workloads, "run",
                      lambda setup, workload, contestant: order.append(contestant.name) or {})
  runs = bench.measure(None, None, [Contestant(name, None) for name in "abc"], 3, [])
  assert "".join(order) == "abcbcacab"
  assert {name: len(costs) for name, costs in runs.items()} == {"a": 3, "b": 3, "c": 3}


def test_another_result_is_a_failed_run(monkeypatch):
  monkeypatch.setattr(bench_workloads, "run", lambda setup, workload, contestant: {
      "digest": "right" if contestant.name == "a" else "wrong"})
  failures = []
  workload = Workload("w", ("true",))
  runs = bench.measure(None, workload, [Contestant(name, None) for name in "ab"], 2, failures)
  assert runs == {"a": [{}, {}]}
  assert failures == ["w on b: the result is not the one of the runs before"]


def read(folder):
  return json.loads((folder / "result.json").read_text())


def test_bench_writes_what_it_measured(run_script, tmp_path):
  outcome = run_script("bench.py", "--out", tmp_path, "--only", "^(pairs/1|redis|sqlite3|latency)$",
                       "-n", "2", "--scale", "0.01", "--json", tmp_path / "copy.json")
  out = outcome.out.decode()
  assert outcome.status == 0, out + tail(outcome.err)
  result = read(tmp_path)
  assert result == json.loads((tmp_path / "copy.json").read_text())
  assert result["machine"]["contestants"].keys() == {"glibc", "minitc"} and not result["failures"]
  assert [w["name"] for w in result["workloads"]] == ["pairs/1", "redis", "sqlite3", "latency"]
  for workload in result["workloads"]:
    for runs in workload["runs"].values():
      assert len(runs) == 2, workload
      for run in runs:
        assert 0 < run["cpu_s"] < 60 and 0 < run["wall_s"] < 60 and run["peak_kib"] > 500, workload
  assert (tmp_path / "result.md").read_text() + "\n" == out
  assert "| pairs/1 " in out and "| latency: slowest, us " in out and "failed" not in out
  for name in ("SET", "GET", "LPUSH", "LRANGE_100"):
    assert f"| redis: {name}, 1000/s " in out


def test_failing_contestant_is_named_and_left_out(run_script, tmp_path):
  (tmp_path / "empty.c").write_text("void *malloc(unsigned long size) { return 0 * size; }\n")
  subprocess.run([tool("gcc", "gcc"), "-w", "-fno-builtin", "-shared", "-fPIC", "-o",
                  tmp_path / "empty.so", tmp_path / "empty.c"], check=True)
  outcome = run_script("bench.py", "--out", tmp_path, "--only", "^containers/1$", "-n", "1",
                       "--scale", "0.01", "--peers", f"empty={tmp_path}/empty.so",
                       "--contestants", "glibc,empty,minitc")
  assert outcome.status == 1
  result = read(tmp_path)
  assert len(result["failures"]) == 1
  assert result["failures"][0].startswith("containers/1 on empty: status ")
  assert result["workloads"][0]["runs"].keys() == {"glibc", "minitc"}
  assert b"failed" in outcome.out and b"## Failed runs" in outcome.out


@pytest.mark.parametrize("script", ["bench.py", "bench_memory.py"])
@pytest.mark.parametrize("words, reason", [
    (["--peers", "jemalloc"], "write name=path"),
    (["--peers", "glibc=/bin/true"], "a contestant of that name already"),
    (["--peers", "x=/no/such.so", "--contestants", "x"], "/no/such.so is missing"),
    (["--peers", f"x={ROOT}/README.md", "--contestants", "x"], "does not define malloc"),
    (["--contestants", "tcmaloc"], "no such contestant"),
    (["--only", "no-such-workload"], "no workload matches"),
    (["--only", "("], "not a regular expression"),
    (["-n", "0"], "-n must be"),
    (["--scale", "-1"], "--scale"),
    (["--threads", "1,two"], "--threads"),
    (["--programs", "/no/such/folder"], "is missing"),
])
def test_bad_input_is_a_clear_error(run_script, tmp_path, script, words, reason):
  outcome = run_script(script, "--out", tmp_path / "out", *words)
  err = outcome.err.decode()
  assert outcome.status == 2 and reason in err and "Traceback" not in err, err
  assert outcome.out == b""


def test_instructions_are_a_difference(run_script, tmp_path):
  """With a valgrind that says 1,000 instructions and 50 for each pair."""
  fake = tmp_path / "valgrind"
  fake.write_text('#!/bin/sh\nfor word; do :; done\necho checksum=1\n'
                  'echo "==1== Collected : $((1000 + 50 * ${word#--count=}))" >&2\n')
  fake.chmod(0o755)
  outcome = run_script("bench_instructions.py", "--only", "tight|calloc", "--json",
                       tmp_path / "out", path=tmp_path)
  assert outcome.status == 0, tail(outcome.err)
  counts = {"glibc": 50.0, "minitc": 50.0}
  assert json.loads((tmp_path / "out").read_text()) == {"tight-64": counts, "calloc-48": counts}
  fake.write_text("#!/bin/sh\necho no such tool >&2\nexit 1\n")
  outcome = run_script("bench_instructions.py", path=tmp_path)
  assert outcome.status == 2 and b"no such tool" in outcome.err


def workload_of(name, walls, is_probe=False):
  """A workload whose runs took so long, by contestant."""
  return {"name": name, "is_probe": is_probe, "runs": {
      contestant: [{"wall_s": wall, "cpu_s": wall, "peak_kib": 1024, "faults": 10}
                   for wall in values] for contestant, values in walls.items()}}


def test_report_computes_medians_ratios_and_pairs():
  first = workload_of("one/1", {"glibc": [1, 2, 9], "jemalloc": [4, 4, 4], "minitc": [1, 4, 4.5]})
  second = workload_of("one/2", {"glibc": [8], "jemalloc": [4], "minitc": [2]})
  assert bench_report.ratios(first, "wall_s") == {"glibc": 1, "jemalloc": 2, "minitc": 2}
  # glibc has the best median of the others: 1/1, 4/2, 4.5/9.
  assert bench_report.against_best_other(first, "wall_s") == ("glibc", 1, 0.5, 2)
  assert bench_report.against_best_other(second, "wall_s") == ("jemalloc", 0.5, 0.5, 0.5)
  assert bench_report.spread(first, "wall_s") == 3.5 / 4
  means = bench_report.geometric_means([first, second], "wall_s", ["glibc", "jemalloc", "minitc"])
  assert means == pytest.approx({"glibc": 2, "jemalloc": 2, "minitc": 2 ** 0.5})
  # A workload that one of them failed counts for none.
  torn = workload_of("torn", {"glibc": [1], "jemalloc": [100], "minitc": []})
  assert means == bench_report.geometric_means([first, second, torn], "wall_s", list(means))
  assert "one/1" not in bench_report.summary([first, second], list(means)).split("Peak RSS")[0]
  slow = workload_of("slow", {"glibc": [1], "minitc": [1.06]})
  assert "behind the best of the others in 1 of 1 workloads: slow 1.06." in bench_report.summary(
      [slow], ["glibc", "minitc"])
  assert "| one, 2 threads to 1 |  0.25 |     1.00 |   2.00 |" in bench_report.scaling_table(
      [first, second], list(means))


def test_library_settings_do_not_leak_into_runs(monkeypatch, lib):
  for name in ("MINITC_CHECK_FREE", "MALLOC_ARENA_MAX", "LD_PRELOAD", "MIMALLOC_VERBOSE"):
    monkeypatch.setenv(name, "1")
  env = bench_contestants.environment(Contestant("minitc", lib))
  assert env["LD_PRELOAD"] == lib
  assert not {"MINITC_CHECK_FREE", "MALLOC_ARENA_MAX", "MIMALLOC_VERBOSE"} & env.keys()


# --- The benchmark of memory ---------------------------------------------------------------------

MEMORY = bench_memory_workloads.WORKLOADS


@pytest.fixture(name="memory_setup")
def fixture_memory_setup(build, tmp_path):
  return bench_memory_workloads.Setup(build / "bench", tmp_path, 0.01, 0.01, False)


@pytest.mark.parametrize("workload", MEMORY, ids=lambda workload: workload.name)
def test_memory_workload_runs(memory_setup, lib, workload):
  bench_workloads.prepare(memory_setup, [workload], bench_memory_workloads.words_of)
  contestants = [Contestant("glibc", None), Contestant("minitc", lib)]
  failures = []
  runs, _ = bench_memory.measure(memory_setup, workload, contestants, 1, failures)
  assert not failures
  plain, ours = (runs[c.name][0]["figures"] for c in contestants)
  assert plain.keys() <= ours.keys()
  assert all("metadata" in name or "own report" in name for name in ours.keys() - plain.keys())
  # The last of them is 30 s after the peak, which nobody waits for here.
  assert set(workload.compared[:1]) <= plain.keys()


def test_what_is_live_and_resident_is_true(memory_setup, lib):
  """The program's objects are counted to the byte, and are there."""
  frees = next(w for w in MEMORY if w.name == "frees-but-1-of-1000")
  done, _ = bench_memory_workloads.run_watched(memory_setup, frees, Contestant("minitc", lib))
  assert done.after(1, 0).live == 500_000 * 120 and done.after(2, 0).live == 500 * 120
  assert 60_000_000 < done.after(1, 0.1).rss < 80_000_000
  assert done.report == {}


def test_report_of_ours_is_read(memory_setup, lib):
  peak = next(w for w in MEMORY if w.name == "peak")
  done, _ = bench_memory_workloads.run_watched(memory_setup, peak, Contestant("minitc", lib))
  live = done.after(1, 0).live
  assert live <= done.report["live"] <= 1.2 * live and done.report["metadata"] > 0


def test_system_calls_are_counted(tmp_path):
  """The program maps and unmaps 1,000 times."""
  calls = "import mmap\nfor _ in range(1000): mmap.mmap(-1, 4096).close()"
  count = bench_memory_workloads.count_calls([PYTHON, "-c", calls], Contestant("glibc", None),
                                             tmp_path / "calls")
  assert 2000 <= count < 2500


def samples_of(*rows):
  return [Sample(*row) for row in rows]


def test_figures_of_memory():
  # RSS - live rises by 10 in each second.
  rising = samples_of(*((s, 200 + 10 * s + s % 2 * 50, 100 + s % 2 * 50, 1) for s in range(11)))
  assert bench_memory_workloads.rise(rising) == pytest.approx(100 * 100 / (100 + 50 * 5 / 11))
  run = bench_memory_workloads.Run(samples_of(
      (0, 50, 0, 0), (1, 900, 800, 1), (2, 1000, 800, 1), (3, 400, 8, 2), (4, 300, 8, 2),
      (8.5, 100, 8, 2), (34, 90, 8, 3)), 0, {}, {})
  assert run.peak == 1000 and run.after(2, 0).rss == 400
  assert run.after(2, 1).rss == 300 and run.after(2, 5).rss == 100
  assert bench_memory_workloads.frees_figures(run)["RSS after the frees, % of the peak"] == 10
  assert bench_memory_workloads.ratio(run.stage(1)) == 1900 / 1600
  with pytest.raises(BadRun, match="too early"):
    run.stage(4)


def memory_result(figures, compared):
  return {"failures": [], "workloads": [{
      "name": "w", "is_probe": False, "compared": compared,
      "runs": {name: [{"figures": {"RSS": value, "more": 7}} for value in values]
               for name, values in figures.items()}}],
          "machine": {"time": "now", "processor": "p", "processors": 2, "kernel": "k", "libc": "l",
                      "huge_pages": "madvise", "repetitions": 3, "scale": 1, "pace": 1,
                      "is_quick": False, "contestants": dict.fromkeys(figures)}}


def test_memory_bench_writes_what_it_measured(run_script, tmp_path):
  outcome = run_script("bench_memory.py", "--out", tmp_path, "--only", "^(nightly|survivors)$",
                       "-n", "2", "--scale", "0.02", "--pace", "0.01", "--json", tmp_path / "copy")
  out = outcome.out.decode()
  assert outcome.status == 0, out + tail(outcome.err)
  result = read(tmp_path)
  assert result == json.loads((tmp_path / "copy").read_text()) and not result["failures"]
  assert (tmp_path / "result.md").read_text() + "\n" == out
  assert "| nightly: RSS / live at the end " in out and "| survivors: " in out
  nightly, survivors = result["workloads"]
  assert [len(runs) for runs in nightly["runs"].values()] == [2, 2]
  assert "samples" in nightly and "samples" not in survivors
  chart = (tmp_path / "nightly.svg").read_text()
  assert all(word in chart for word in ("glibc", "minitc", "live", "RSS"))


def test_memory_report_is_published(run_script, tmp_path):
  document, mark = tmp_path / "doc.md", bench_memory_report.MARK
  document.write_text(f"# Before\n{mark}\nold\n{mark}\nafter\n")
  words = ["--out", tmp_path / "out", "--only", "^nightly$", "--scale", "0.02", "--pace", "0.01",
           "--document", document]
  outcome = run_script("bench_memory.py", *words)
  assert outcome.status == 0, tail(outcome.err)
  text = document.read_text()
  assert text.startswith(f"# Before\n{mark}\n") and text.endswith(f"\n{mark}\nafter\n")
  assert "old" not in text and "\n### What is compared" in text and "| nightly: RSS / live" in text
  assert "minitc" in (tmp_path / "doc-nightly.svg").read_text()
  document.write_text("# No place\n")
  outcome = run_script("bench_memory.py", *words)
  assert outcome.status == 2 and b"doc.md: not two lines" in outcome.err and outcome.out == b""
  assert document.read_text() == "# No place\n"


def test_failing_contestant_of_memory_is_left_out(memory_setup, monkeypatch):
  """Of those that run at once, too."""
  def run(_setup, _workload, contestant):
    if contestant.name == "b":
      raise BadRun("of its own accord")
    return {"figures": {}, "digest": contestant.name == "d", "samples": []}

  monkeypatch.setattr(bench_memory_workloads, "run", run)
  for workload in (w for w in MEMORY if w.name in ("nightly", "frees")):
    failures = []
    runs, _ = bench_memory.measure(memory_setup, workload,
                                   [Contestant(name, None) for name in "abdc"], 2, failures)
    assert {name: len(several) for name, several in runs.items()} == {"a": 2, "c": 2}
    assert failures == [f"{workload.name} on b: of its own accord",
                        f"{workload.name} on d: the result is not the one of the runs before"]


def test_memory_report_compares_with_the_best_other():
  figures = {"glibc": [4, 2, 3], "jemalloc": [9, 9, 9], "minitc": [3.3, 3.3, 3.3]}
  text = bench_memory_report.tables(memory_result(figures, ["RSS"]))
  assert "| w: RSS | 3.00 (2.00-4.00) |     9.00 |   3.30 |          1.10 glibc |" in text
  assert "minitc is best or within 3% of the best in 0 of 1; not in w: RSS (1.10)." in text
  figures["minitc"] = [3.05]
  text = bench_memory_report.tables(memory_result(figures, ["RSS"]))
  assert "in 1 of 1." in text
