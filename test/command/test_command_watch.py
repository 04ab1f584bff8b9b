"""minitc stats and top: what a process wrote to MINITC_STATS_FILE, for people and for Prometheus."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMAND = ROOT / "scripts" / "minitc"
# Three large blocks, 1000 objects of a class of its own, and time to look.
WORK = """
import ctypes, time
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.minitc_stats_write()
kept = [c.malloc(300 << 10) for _ in range(3)] + [c.malloc(7000) for _ in range(1000)]
c.minitc_stats_write()
if {seconds}:
  print("ready", flush=True)
end = time.monotonic() + {seconds}
while time.monotonic() < end:
  kept += [c.malloc(7000) for _ in range(100)]
  time.sleep(0.01)
"""


@pytest.fixture
def command(run_plain):
  def call(*words, **kw):
    return run_plain([COMMAND, *words], **kw)
  return call


@pytest.fixture(scope="module")
def recorded(run_ok, tmp_path_factory):
  """A file with the lines of two processes that have ended."""
  path = tmp_path_factory.mktemp("recorded") / "lines"
  for _ in range(2):
    run_ok(["/usr/bin/python3", "-c", WORK.format(seconds=0)],
           {"MINITC_STATS_FILE": str(path), "MINITC_STATS_INTERVAL": "86400000"})
  return path


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def written(path, *lines):
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


def rows_of(text):
  """The first words of each row, by its name."""
  return {line.split()[0]: line.split() for line in text.splitlines() if line.split()}


def test_stats_shows_the_last_line(command, recorded, tmp_path):
  lines = lines_of(recorded)
  before, call = [line for line in lines if line["event"] == "call"][-2:]
  result = command("stats", written(tmp_path / "one", call))
  assert (result.returncode, result.stderr) == (0, "")
  assert f"process {call['pid']}, written " in result.stdout
  rows = rows_of(result.stdout)
  assert rows["7168"][:2] == ["7168", "1000"]
  assert rows["large"][:2] == ["large", str(before["large_count"] + 3)]
  assert rows["live"][1:4] == [f"{call['live'] / (1 << 20):.1f}", "MiB",
                               f"{call['live'] / call['mapped']:.0%}"]
  assert "refills" not in rows  # there is no line before
  # The largest first.
  held = {row["bytes"]: row["bytes"] * (row["live"] + row["thread_cached"] + row["central"])
          for row in call["classes"]}
  shown = [int(word) for word in re.findall(r"^ *(\d+) +\d+ ", result.stdout, re.MULTILINE)]
  assert shown == sorted(held, key=lambda size: -held[size])[:len(shown)] and len(shown) == 12


def test_stats_of_a_process_that_has_ended(command, recorded):
  result = command("stats", recorded)
  assert f"process {lines_of(recorded)[-1]['pid']}, has ended" in result.stdout


def test_rates(command, recorded, tmp_path):
  line = [line for line in lines_of(recorded) if line["event"] == "call"][-1]
  before = json.loads(json.dumps(line))
  before["monotonic_ms"] -= 2000
  before["large_acquired_bytes"] -= 4 << 20
  for row in before["classes"]:
    if row["bytes"] == 7168:
      row["refilled"] -= 600
  rows = rows_of(command("stats", written(tmp_path / "two", before, line)).stdout)
  assert rows["7168"][-1] == "300"
  assert rows["refills"][1:3] == [f"{300 * 7168 / (1 << 20):.1f}", "MiB/s"]
  # The row of large objects comes last; the rate's begins with the same word.
  assert re.search(r"^large +2.0 MiB/s ", command("stats", tmp_path / "two").stdout, re.MULTILINE)


def test_a_process_of_the_same_number_has_counts_of_its_own(command, recorded, tmp_path):
  """As each start of a container has. There is no rate from one to the other."""
  before = next(line for line in lines_of(recorded) if line["event"] == "exit")
  second = [line for line in lines_of(recorded) if line["event"] == "interval"][-1]
  second["pid"] = before["pid"]
  result = command("stats", written(tmp_path / "two", before, second))
  assert result.returncode == 0 and "B/s" not in result.stdout


def test_prometheus(command, recorded):
  parser = pytest.importorskip("prometheus_client.parser")
  result = command("stats", "--prometheus", recorded)
  assert (result.returncode, result.stderr) == (0, "")
  last = {str(line["pid"]): line for line in lines_of(recorded)}
  assert len(last) == 2
  samples = {}
  for family in parser.text_string_to_metric_families(result.stdout):
    assert family.documentation.endswith(".") and family.type in ("gauge", "counter")
    for sample in family.samples:
      samples[sample.name, sample.labels["pid"], sample.labels.get("bytes")] = sample.value
  for pid, line in last.items():
    for field in ("live", "thread_cached", "central", "page_heap_free", "returned", "mapped",
                  "metadata", "peak"):
      assert samples[f"minitc_{field}_bytes", pid, None] == line[field]
    assert samples["minitc_large_acquired_total", pid, None] == line["large_acquired"]
    for row in line["classes"]:
      assert samples["minitc_class_live_objects", pid, str(row["bytes"])] == row["live"]
      assert samples["minitc_class_refilled_total", pid, str(row["bytes"])] == row["refilled"]


@pytest.fixture
def working(lib, tmp_path):
  """A process that allocates for a while, and its file."""
  path = tmp_path / "lines.%p"
  env = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "MINITC"))}
  env.update(LD_PRELOAD=lib, MINITC_STATS_FILE=str(path), MINITC_STATS_INTERVAL="50")
  with subprocess.Popen(["/usr/bin/python3", "-c", WORK.format(seconds=30)], env=env,
                        stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == "ready\n"
    yield process, tmp_path / f"lines.{process.pid}"
    process.kill()


def test_stats_of_a_process(command, working):
  process, path = working
  result = command("stats", str(process.pid))
  assert result.returncode == 0
  assert re.match(rf"process {process.pid}, written \d s ago", result.stdout)
  result = command("stats", "--prometheus", str(process.pid))
  assert f'minitc_threads{{pid="{process.pid}"}} 1\n' in result.stdout
  assert path.exists()


def test_stats_where_no_memory_may_be_read(run_plain, working):
  """As where Yama restricts ptrace. The path is in the environment."""
  process, _ = working
  result = run_plain(["strace", "-qq", "-o", "/dev/null", "-P", f"/proc/{process.pid}/mem", "-e",
                      "inject=openat:error=EPERM", "/usr/bin/python3", COMMAND, "stats",
                      process.pid])
  assert (result.returncode, result.stderr) == (0, "")
  assert f"process {process.pid}, written " in result.stdout


def heed_sigint():
  """Tests that a shell runs in the background inherit that SIGINT is ignored."""
  signal.signal(signal.SIGINT, signal.SIG_DFL)


class Screen:
  """A terminal with top on it."""

  def __init__(self, *words):
    self.ours, theirs = pty.openpty()
    self.process = subprocess.Popen([COMMAND, "top", *words], stdout=theirs, stdin=theirs,
                                    stderr=subprocess.PIPE, text=True, preexec_fn=heed_sigint,
                                    env={**os.environ, "TERM": "xterm", "LINES": "30",
                                         "COLUMNS": "100"})
    os.close(theirs)
    self.text = ""

  def read_until(self, done):
    deadline = time.monotonic() + 40
    while not done(self.text) and time.monotonic() < deadline:
      if select.select([self.ours], [], [], 0.1)[0]:
        try:
          self.text += os.read(self.ours, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
          break
    return done(self.text)

  def end(self):
    if self.process.poll() is None:
      self.process.kill()
    self.process.communicate()
    os.close(self.ours)


def live_objects(text):
  """How many objects of 7168 bytes each picture showed."""
  return [int(count) for count in re.findall(r"\s7168 +(\d+) ", text)]


def test_top_shows_what_changes(working):
  process, path = working
  screen = Screen(str(path))
  try:
    assert screen.read_until(lambda text: len(set(live_objects(text))) >= 3)
    counts = live_objects(screen.text)
    assert counts == sorted(counts) and counts[0] >= 1000
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(20) == 130
  finally:
    screen.end()


@pytest.mark.parametrize("take_away", [
    lambda path: path.rename(path.with_suffix(".1")), lambda path: path.write_text("")],
    ids=["moved", "emptied"])
def test_top_goes_on_when_the_file_is_taken_away(working, take_away):
  process, path = working
  screen = Screen(str(path))
  try:
    assert screen.read_until(live_objects)
    process.send_signal(signal.SIGSTOP)  # so that no new line comes at once
    take_away(path)
    seen = len(live_objects(screen.text))
    assert screen.read_until(lambda text: len(live_objects(text)) >= seen + 3)
    process.send_signal(signal.SIGCONT)
    most = live_objects(screen.text)[-1]
    assert screen.read_until(lambda text: live_objects(text)[-1] > most)
  finally:
    screen.end()


def test_top_ends_with_the_process(working):
  process, _ = working
  screen = Screen(str(process.pid))
  try:
    assert screen.read_until(live_objects)
    process.kill()  # and so without a last line
    process.wait()
    assert screen.process.wait(20) == 0
  finally:
    screen.end()


@pytest.mark.parametrize("words", [["--version"], ["check", "true"], ["stats", "--prometheus"],
                                   ["stats"]], ids=["version", "check", "prometheus", "stats"])
@pytest.mark.parametrize("place, status, message", [
    (">&-", 0, ""), (">/dev/full", 2, "minitc: [Errno 28] No space left on device\n")],
    ids=["closed", "full"])
def test_stdout_that_takes_nothing(run_plain, recorded, words, place, status, message):
  words = [*words, recorded] if "stats" in words else words
  result = run_plain(["sh", "-c", f'"$@" {place}', "sh", COMMAND, *words])
  assert (result.returncode, result.stderr) == (status, message)


def test_help_into_a_full_disk(run_plain):
  result = run_plain(["sh", "-c", '"$1" --help >/dev/full', "sh", COMMAND])
  assert (result.returncode, result.stderr) == (
      2, "minitc: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("content, message", [
    (None, "{}: No such file or directory"), ("", "{}: nothing was written yet"),
    ('{{"torn": ', "{}: nothing was written yet"),
    ("no JSON\n", "{}: not a file of MINITC_STATS_FILE: b'no JSON'"),
    ("[1]\n", "{}: not a file of MINITC_STATS_FILE: b'[1]'"),
    ('{{"a": 1}}\n', "{}: not a file of MINITC_STATS_FILE: b'{{\"a\": 1}}'"),
    ('{{"format": 2}}\n', "{}: format 2, this is for format 1")])
@pytest.mark.parametrize("options", [[], ["--prometheus"]], ids=["text", "prometheus"])
def test_bad_files(command, tmp_path, content, message, options):
  path = tmp_path / "lines"
  if content is not None:
    path.write_text(content.format())
  result = command("stats", *options, path)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr == f"minitc: {message.format(path)}\n"


def test_torn_lines_are_passed_over(command, run_ok, build, tmp_path):
  path = tmp_path / "lines"
  path.write_text('{"format":1,"event":"inter\n')
  run_ok([build / "preload" / "stats_file", "at_work"], {"MINITC_STATS_FILE": str(path)})
  result = command("stats", path)
  assert (result.returncode, result.stderr) == (0, "")
  last = json.loads(path.read_text().splitlines()[-1])
  assert result.stdout.startswith(f"process {last['pid']}, has ended")


@pytest.mark.parametrize("words, message", [
    (["stats"], "the following arguments are required: FILE|PID"),
    (["stats", "--bogus", "x"], "minitc stats: --bogus: no such option"),
    (["top", "--prometheus", "x"], "minitc top: --prometheus: no such option"),
    (["stats", "4194399"], "minitc: 4194399: no such process or file"),
    (["top", "/dev/null"], "minitc: top needs a terminal; minitc stats prints the same once")])
def test_bad_input(command, words, message):
  result = command(*words)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr.splitlines()[-1].endswith(message)


def test_process_without_a_file(command):
  with subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"]}) as process:
    try:
      result = command("stats", str(process.pid))
    finally:
      process.kill()
  assert (result.returncode, result.stderr) == (
      2, f"minitc: {process.pid}: started without MINITC_STATS_FILE\n")


def test_process_that_overwrites_its_environment(command, lib, tmp_path):
  """As servers do that show their state in ps."""
  code = """
import ctypes, time
c = ctypes.CDLL(None)
environ = ctypes.POINTER(ctypes.c_void_p).in_dll(c, "environ")
i = 0
while environ[i]:
  ctypes.memset(environ[i], 0, c.strlen(ctypes.c_void_p(environ[i])))
  i += 1
print("ready", flush=True)
time.sleep(60)
"""
  env = {"PATH": os.environ["PATH"], "LD_PRELOAD": lib,
         "MINITC_STATS_FILE": str(tmp_path / "lines.%p")}
  with subprocess.Popen(["/usr/bin/python3", "-c", code], env=env, stdout=subprocess.PIPE,
                        text=True) as process:
    try:
      assert process.stdout.readline() == "ready\n"
      assert b"MINITC" not in pathlib.Path(f"/proc/{process.pid}/environ").read_bytes()
      result = command("stats", str(process.pid))
    finally:
      process.kill()
  assert (result.returncode, result.stderr) == (0, "")
  assert f"process {process.pid}, written " in result.stdout


def test_torn_last_line_is_not_read(command, recorded, tmp_path):
  """A line that is being written, or that a full disk cut off."""
  path = tmp_path / "lines"
  path.write_text(recorded.read_text() + recorded.read_text()[:100])
  assert command("stats", path).stdout == command("stats", recorded).stdout
