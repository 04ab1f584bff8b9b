"""MINITC_STATS_FILE: the lines that a program leaves for those who watch it."""
import json
import os
import stat

import pytest

PARTS = ["live", "thread_cached", "central", "page_heap_free", "returned"]
KEYS = {"format", "event", "pid", "time_ms", "monotonic_ms", "options", *PARTS, "mapped", "metadata", "peak", "large_bytes", "large_count",
        "large_acquired", "large_acquired_bytes", "free_runs_returned", "threads", "pools",
        "pool_bytes", "classes"}
CLASS_KEYS = {"bytes", "spans", "live", "thread_cached", "central", "refilled", "pinned",
              "pinning"}


@pytest.fixture
def watched(run_ok, build, tmp_path):
  """Runs a case; gives its output and the lines of each file that it left, by name."""
  def run(case, name="lines", **env):
    result = run_ok([build / "preload" / "stats_file", case],
                    {"MINITC_STATS_FILE": str(tmp_path / name), "MINITC_STATS_INTERVAL": "20",
                     **env})
    assert result.stderr == ""
    files = {path.name: [json.loads(line) for line in path.read_text().splitlines()]
             for path in tmp_path.iterdir()}
    return result.stdout, files
  return run


def test_fields_are_all_there_and_add_up(watched):
  _, files = watched("at_work")
  for line in files["lines"]:
    assert set(line) == KEYS and line["format"] == 1
    assert line["mapped"] == sum(line[part] for part in PARTS)
    assert line["live"] == line["large_bytes"] + sum(c["bytes"] * c["live"] for c in line["classes"])
    assert line["thread_cached"] == sum(c["bytes"] * c["thread_cached"] for c in line["classes"])
    for row in line["classes"]:
      assert set(row) == CLASS_KEYS
      assert row["refilled"] >= row["live"] + row["thread_cached"]
      assert row["pinned"] <= row["central"] and (row["pinned"] == 0) == (row["pinning"] == 0)
    sizes = [row["bytes"] for row in line["classes"]]
    assert sizes == sorted(set(sizes))


def test_lines_come_at_the_interval_and_at_the_end(watched):
  _, files = watched("at_work", MINITC_STATS_INTERVAL="40")
  lines = files["lines"]
  assert [line["event"] for line in lines] == ["interval"] * (len(lines) - 1) + ["exit"]
  assert len(lines) >= 3  # 300 ms of work, or more on a busy machine
  clock = [line["monotonic_ms"] for line in lines[:-1]]
  assert all(later - earlier >= 40 for earlier, later in zip(clock, clock[1:]))
  assert all(abs((line["time_ms"] - lines[0]["time_ms"]) - (line["monotonic_ms"] - clock[0])) < 1000
             for line in lines)
  for counter in ("large_acquired", "large_acquired_bytes", "free_runs_returned"):
    values = [line[counter] for line in lines]
    assert values == sorted(values)
  assert lines[-1]["large_acquired"] > 10
  # They may begin behind the first line of their pages, and have one more.
  assert lines[-1]["large_acquired_bytes"] == lines[-1]["large_acquired"] * (1024 + 8 << 10)


def test_a_long_interval_gives_the_first_line_and_the_last(watched):
  _, files = watched("at_work", MINITC_STATS_INTERVAL="86400000")
  assert [line["event"] for line in files["lines"]] == ["interval", "exit"]


def test_a_call_writes_what_is_so_now(watched):
  out, files = watched("on_call", MINITC_STATS_INTERVAL="86400000")
  assert out == "1\n"
  line, = (line for line in files["lines"] if line["event"] == "call")
  assert line["large_count"] == 3 and line["large_bytes"] == 3 * (304 << 10)
  assert files["lines"][-1]["large_count"] == 0


def test_frees_alone_find_the_time(watched):
  """More than one, where they take longer than an interval."""
  _, files = watched("only_frees")
  events = [line["event"] for line in files["lines"]]
  assert set(events[events.index("call") + 1:-1]) == {"interval"} and events[-1] == "exit"


@pytest.mark.parametrize("case", ["only_callocs", "only_reallocs"])
def test_every_slow_path_finds_the_time(watched, case):
  _, files = watched(case, MINITC_STATS_INTERVAL="1")
  assert len(files["lines"]) > 4


def test_a_file_that_may_not_grow(run_ok, build, tmp_path):
  path = tmp_path / "lines"
  env = {"MINITC_STATS_FILE": str(path), "MINITC_STATS_INTERVAL": "1"}
  result = run_ok([build / "preload" / "stats_file", "short_file"], env)
  assert (result.stdout, result.stderr) == ("", "")
  text = path.read_bytes()
  assert len(text) == 10000 and not text.endswith(b"\n")
  run_ok([build / "preload" / "stats_file", "at_work"], env)
  lines = path.read_bytes()[10000:].split(b"\n")
  assert all("live" in json.loads(line) for line in lines[1:-1]) and len(lines) > 4


def test_a_call_without_a_file(run_ok, run_plain, build):
  assert run_ok([build / "preload" / "stats_file", "on_call"]).stdout == "0\n"
  assert run_plain([build / "preload" / "stats_file", "on_call"]).stdout == "no library\n"


def test_options_are_told(watched):
  _, files = watched("on_call", MINITC_THREAD_CACHE_TOTAL="1M", MINITC_FREE_BOUND="2M")
  options = files["lines"][0]["options"]
  assert (options["MINITC_THREAD_CACHE_TOTAL"], options["MINITC_FREE_BOUND"],
          options["MINITC_STATS_INTERVAL"], options["MINITC_ON_BAD_FREE"]) == (
              1 << 20, 2 << 20, 20, "abort")
  assert "MINITC_STATS_FILE" not in options


def test_threads_do_not_tear_lines(watched):
  """Each line is whole, and no two threads wrote for one interval."""
  _, files = watched("threads", MINITC_STATS_INTERVAL="5")
  lines = files["lines"]
  assert len(lines) >= 5 and max(line["threads"] for line in lines) >= 4
  assert lines[-1]["event"] == "exit"


def test_the_last_line_is_whole_and_that_of_the_exit(watched):
  """The kernel ends other threads wherever they are, also in the middle of a line."""
  for turn in range(10):
    _, files = watched("exits_among_writers", f"lines{turn}", MINITC_STATS_INTERVAL="86400000")
    events = [line["event"] for line in files[f"lines{turn}"]]
    assert events[-1] == "exit" and events.count("exit") == 1 and "call" in events


@pytest.mark.parametrize("name", ["lines.%p", "%p.%p.lines", "lines"])
def test_children_write_their_own(watched, name):
  out, files = watched("forks", name)
  parent, child = out.split()
  if "%p" in name:
    assert set(files) == {name.replace("%p", parent), name.replace("%p", child)}
    for pid in (parent, child):
      assert {line["pid"] for line in files[name.replace("%p", pid)]} == {int(pid)}
      assert files[name.replace("%p", pid)][-1]["event"] == "exit"
  else:
    assert {line["pid"] for line in files["lines"]} == {int(parent), int(child)}
    assert [line["event"] for line in files["lines"]].count("exit") == 2


def test_children_of_a_program_with_threads(watched):
  _, files = watched("forks_among_threads", MINITC_STATS_INTERVAL="1")
  assert len({line["pid"] for line in files["lines"] if line["event"] == "call"}) == 100


def test_daemons(watched):
  """Neither the environment nor open files of the library are needed; and none stays open."""
  out, files = watched("daemon_like")
  assert out == "4\n"  # 0 to 2 and the program's own, which nothing was written to
  assert len(files["lines"]) >= 3


def test_errno_stays(watched, run_ok, build):
  watched("keeps_errno")
  for path in ("/no/such/folder/lines", "/", "/dev/full"):
    result = run_ok([build / "preload" / "stats_file", "keeps_errno"],
                    {"MINITC_STATS_FILE": path, "MINITC_STATS_INTERVAL": "1"})
    assert (result.stdout, result.stderr) == ("", "")


def test_what_cannot_be_written_is_told_to_the_caller(run_ok, build):
  for path in ("/no/such/folder/lines", "/", "/dev/full"):
    assert run_ok([build / "preload" / "stats_file", "on_call"],
                  {"MINITC_STATS_FILE": path}).stdout == "0\n"


def test_a_pipe_without_a_reader_holds_nobody_up(run_ok, build, tmp_path):
  os.mkfifo(tmp_path / "pipe")
  assert run_ok([build / "preload" / "stats_file", "on_call"],
                {"MINITC_STATS_FILE": str(tmp_path / "pipe")}).stdout == "0\n"


def test_lines_are_appended(watched, tmp_path):
  (tmp_path / "lines").write_text('{"before": 1}\n')
  _, files = watched("on_call")
  assert files["lines"][0] == {"before": 1} and len(files["lines"]) >= 3
  (tmp_path / "lines").unlink()
  watched("on_call")
  assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) & ~0o644 == 0


def test_real_program(run_ok, tmp_path):
  path = tmp_path / "lines"
  code = "x = [str(i) * 9 for i in range(300000)]"
  run_ok(["/usr/bin/python3", "-c", code], {"PYTHONMALLOC": "malloc", "MINITC_STATS_FILE": str(path),
                                            "MINITC_STATS_INTERVAL": "10"})
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert max(line["live"] for line in lines) > 10 << 20
  assert max(line["live"] for line in lines) <= lines[-1]["peak"]


@pytest.mark.parametrize("value, complaint", [
    ("lines", "MINITC_STATS_FILE: not an absolute path, ignored"),
    ("", "MINITC_STATS_FILE: not an absolute path, ignored"),
    ("/" + "x" * 512, "MINITC_STATS_FILE: too long a path, ignored")])
def test_bad_paths(run_ok, tmp_path, value, complaint):
  result = run_ok(["/bin/true"], {"MINITC_STATS_FILE": value}, cwd=tmp_path)
  assert result.stderr == f"libminitc: {complaint}\n"
  assert list(tmp_path.iterdir()) == []
