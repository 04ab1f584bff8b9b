"""minitc compare: each allocator in its turn, the figures, and what fails."""
import json
import os
import pathlib
import pty
import shlex
import signal
import statistics
import subprocess
import threading
import time
import xml.etree.ElementTree as xml

import pytest

COSTS = ["wall_s", "cpu_s", "peak_kib", "faults"]
JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def measured(result):
  assert result.returncode in (0, 1), result.stderr
  return json.loads(result.stdout)


def test_each_runs_in_turn_on_its_own_library(minitc, lib, tmp_path):
  log = tmp_path / "log"
  result = measured(minitc("compare", "-n", "3", "--with", "glibc,jemalloc", "--json", "-", "--",
                           "sh", "-c", f'echo "$LD_PRELOAD" >> {log}'))
  order = ["", JEMALLOC, lib]
  assert [os.path.realpath(path) if path else "" for path in log.read_text().split("\n")[:-1]] == [
      os.path.realpath(path) if path else ""
      for shift in range(3) for path in order[shift:] + order[:shift]]
  assert result["command"] == ["sh", "-c", f'echo "$LD_PRELOAD" >> {log}']
  assert list(result["contestants"]) == ["glibc", "jemalloc", "minitc"]
  assert result["contestants"]["minitc"] == os.path.realpath(lib)


def test_figures(minitc):
  result = measured(minitc("compare", "-n", "3", "--with", "glibc", "--json", "-", "/usr/bin/python3",
                           "-c", "x = bytearray(50 << 20); x[::4096] = x[::4096]"))
  for cost in COSTS:
    values = {name: [run[cost] for run in runs] for name, runs in result["runs"].items()}
    medians = {name: statistics.median(part) for name, part in values.items()}
    for name, part in values.items():
      row = result["summary"][name][cost]
      assert len(part) == 3
      assert (row["median"], row["least"], row["most"]) == (medians[name], min(part), max(part))
      assert row["ratio"] == pytest.approx(medians[name] / min(medians.values()))
      assert row["spread"] == pytest.approx((max(part) - min(part)) / medians[name])
  for runs in result["runs"].values():
    # The command's own: not this interpreter's, nor that of the command minitc.
    assert all(50 << 10 < run["peak_kib"] < 80 << 10 and run["faults"] > 1000 for run in runs)
    assert all(0 < run["cpu_s"] < 60 and 0 < run["wall_s"] < 60 for run in runs)


def test_peak_is_not_our_own(minitc):
  result = measured(minitc("compare", "-n", "1", "--with", "glibc", "--json", "-", "/bin/true"))
  assert all(run["peak_kib"] < 4096 for runs in result["runs"].values() for run in runs)


def test_table(minitc):
  result = minitc("compare", "-n", "2", "--with", "tcmalloc=" + JEMALLOC, "/bin/true")
  assert result.returncode == 0 and result.stderr == ""
  lines = result.stdout.splitlines()
  assert max(map(len, lines)) <= 80
  rows = [line.split() for line in lines if line.startswith(("tcmalloc", "minitc "))]
  assert [row[0] for row in rows[:2]] == ["tcmalloc", "minitc"]
  assert all(len(row) == 13 for row in rows[:2])  # a median, a spread and a ratio, four times
  assert "minitc divided by glibc" not in result.stdout
  result = minitc("compare", "-n", "2", "--with", "glibc", "/bin/true")
  assert "minitc divided by glibc: time " in result.stdout


def test_a_name_for_gperftools(minitc):
  result = minitc("compare", "-n", "1", "--with", "tcmalloc", "/bin/true")
  if result.returncode == 2:
    assert result.stderr == "minitc: gperftools: libtcmalloc_minimal.so.4 is not installed\n"
  else:
    assert "\ngperftools " in result.stdout


def test_a_failure_is_named(minitc, tmp_path):
  svg = tmp_path / "chart.svg"
  command = ('case $LD_PRELOAD in *minitc*) echo "no luck" >&2; exit 3;; '
             '*jemalloc*) kill -SEGV $$;; esac')
  result = minitc("compare", "-n", "2", "--with", "glibc,jemalloc", "--svg", svg, "sh", "-c", command)
  assert result.returncode == 1
  assert "\nminitc failed: status 3: no luck\n" in result.stdout
  assert "\njemalloc failed: ended by SIGSEGV\n" in result.stdout
  assert "glibc failed" not in result.stdout
  assert "minitc divided" not in result.stdout
  labels = [text.strip() for text in xml.parse(svg).getroot().itertext()]
  assert "glibc" in labels and "jemalloc" not in labels


def test_all_fail(minitc, tmp_path):
  svg = tmp_path / "chart.svg"
  result = minitc("compare", "-n", "2", "--with", "glibc", "--svg", svg, "false")
  assert result.returncode == 1 and not svg.exists()
  assert result.stdout.endswith("glibc failed: status 1\nminitc failed: status 1\n")


def test_chart(minitc, tmp_path):
  path = tmp_path / "chart.svg"
  result = minitc("compare", "-n", "2", "--with", "glibc,jemalloc", "--svg", path, "--", "sh", "-c",
                  "echo 'it''s' `echo \\n` &&\n:")
  assert (result.returncode, result.stderr) == (0, "")
  text = " ".join(xml.parse(path).getroot().itertext())
  for word in ("glibc", "jemalloc", "minitc", "Time, s", "Processor time, s", "Peak RSS, MiB",
               "Page faults", "`echo"):
    assert word in text
  assert path.read_text().count("#d62728") + path.read_text().count("rgb(214,  39,  40)") >= 4


def test_input(minitc, tmp_path):
  source = tmp_path / "input"
  source.write_text("exit 5\n")
  assert "glibc failed: status 5" in minitc("compare", "-n", "1", "--with", "glibc", "--stdin", source,
                                            "sh").stdout
  assert minitc("compare", "-n", "1", "--with", "glibc", "sh").returncode == 0


def assert_ended(pids):
  """All processes, also those that nobody has waited for."""
  deadline = time.monotonic() + 10
  while any(state_of(pid) != "Z" for pid in pids) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert [state_of(pid) for pid in pids] == ["Z"] * len(pids)


def test_time_limit(minitc, tmp_path):
  """What takes too long is ended with all that it started."""
  log = tmp_path / "log"
  begin = time.monotonic()
  result = minitc("compare", "-n", "1", "--with", "glibc", "--timeout", "1.5", "sh", "-c",
                  f"sleep 50 & echo $! >> {log}; wait")
  assert result.returncode == 1 and time.monotonic() - begin < 40
  assert "glibc failed: no end after 1.5 s\nminitc failed: no end after 1.5 s\n" in result.stdout
  pids = log.read_text().split()
  assert len(pids) == 2
  assert_ended(pids)


def test_time_limit_of_a_load(minitc, tmp_path):
  log = tmp_path / "log"
  load = shlex.join(["sh", "-c", f"sleep 50 & echo $! >> {log}; wait"])
  result = minitc("compare", "-n", "1", "--with", "glibc", "--timeout", "0.5", "--load", load,
                  "sleep", "50")
  assert result.returncode == 1
  assert "glibc failed: the load did not end after 0.5 s\n" in result.stdout
  pids = log.read_text().split()
  assert len(pids) == 2
  assert_ended(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_what_was_started(lib, tmp_path, number):
  """Server and load, and the folder of its own is gone."""
  log = tmp_path / "log"
  talker = shlex.join(["sh", "-c", f"sleep 50 & echo $! >> {log}; wait"])
  folder = tmp_path / "tmp"
  folder.mkdir()
  with subprocess.Popen([ROOT / "scripts" / "minitc", "compare", "--lib", lib, "-n", "1", "--with",
                         "glibc", "--load", talker, *shlex.split(talker)], stderr=subprocess.PIPE,
                        text=True, env={**os.environ, "TMPDIR": str(folder)},
                        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
    deadline = time.monotonic() + 40
    while (not log.exists() or log.read_text().count("\n") < 2) and time.monotonic() < deadline:
      time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=40)
  assert (process.returncode, error) == (128 + number, "")
  pids = log.read_text().split()
  assert len(pids) == 2
  assert_ended(pids)
  assert list(folder.iterdir()) == []


def state_of(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
  except (FileNotFoundError, ProcessLookupError):  # the latter between open and read
    return "Z"


def test_server_and_load(minitc, tmp_path):
  """redis-server, which is linked with jemalloc: glibc's row is glibc's malloc all the same."""
  socket = tmp_path / "s"
  log = tmp_path / "log"
  load = (f"until redis-cli -s {socket} ping; do sleep 0.02; done; "
          f"redis-cli -s {socket} info server | tr -d '\\r' | sed -n 's/process_id://p' | "
          f"xargs -I% /usr/bin/python3 {ROOT}/scripts/minitc check % >> {log}; "
          f"redis-benchmark -s {socket} -q -n 2000 -t set; env | grep -q LD_PRELOAD && exit 1; :")
  result = measured(minitc(
      "compare", "-n", "1", "--with", "glibc", "--json", "-", "--load", f"sh -c {json.dumps(load)}",
      "redis-server", "--port", "0", "--save", "", "--unixsocket", socket, "--dir", tmp_path))
  assert result["failures"] == {}
  assert os.path.basename(result["contestants"]["glibc"]) == "libc.so.6"
  assert all(run["peak_kib"] > 4096 and run["wall_s"] > 0 for runs in result["runs"].values()
             for run in runs)
  text = log.read_text()
  assert text.count("without LD_PRELOAD") == 1 and text.count("malloc is that of") == 1


@pytest.mark.parametrize("load, server, message", [
    ("false", "sleep 50", "the load: status 1"),
    ("sleep 1", "exit 4", "the server ended before its load did"),
    ("sh -c 'until rm ready; do sleep 0.02; done'",
     "trap 'exit 6' TERM; touch ready; while :; do sleep 0.02; done", "status 6")])
def test_server_or_load_fails(minitc, tmp_path, load, server, message):
  result = minitc("compare", "-n", "1", "--with", "glibc", "--load", load, "sh", "-c", server,
                  cwd=tmp_path)
  assert result.returncode == 1 and f"glibc failed: {message}" in result.stdout


def test_progress_on_a_terminal(lib):
  """A bar while it runs, that is gone at the end; none where stderr is no terminal."""
  ours, theirs = pty.openpty()
  seen = []

  def read():
    try:
      while chunk := os.read(ours, 4096):
        seen.append(chunk)
    except OSError:  # the terminal's other end is closed
      pass

  env = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
  with subprocess.Popen([ROOT / "scripts" / "minitc", "compare", "--lib", lib, "-n", "3", "--with",
                         "glibc", "sleep", "0.2"], env={**env, "TERM": "xterm"},
                        stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
    os.close(theirs)
    thread = threading.Thread(target=read)
    thread.start()
    out, _ = process.communicate(timeout=60)
    thread.join(60)
  os.close(ours)
  text = b"".join(seen).decode(errors="replace")
  assert process.returncode == 0 and "minitc divided by glibc" in out
  assert "/6" in text and "glibc" in text and "minitc" in text


@pytest.mark.parametrize("words, message", [
    ([], "minitc compare: no command is given"),
    (["--bogus"], "minitc compare: --bogus: no such option"),
    (["-n", "0", "true"], "minitc compare: argument -n: 0: write a number of 1 to 1000"),
    (["-n", "many", "true"], "minitc compare: argument -n: many: write a number of 1 to 1000"),
    (["--timeout", "-1", "true"], "argument --timeout: -1: write a number of seconds above 0"),
    (["--timeout", "nan", "true"], "argument --timeout: nan: write a number of seconds above 0"),
    (["--load", "sh -c 'x", "true"],
     "minitc compare: argument --load: sh -c 'x: No closing quotation"),
    (["--with", "dlmalloc", "true"], "minitc: dlmalloc: no such contestant; there are glibc, "
                                     "jemalloc, gperftools, mimalloc, minitc"),
    (["--with", "minitc", "true"], "minitc: nothing to compare with"),
    (["--with", "mine=/no/such.so", "true"], "minitc: mine: /no/such.so is missing"),
    (["--with", "mine=/usr/lib/x86_64-linux-gnu/libz.so.1", "true"],
     "minitc: mine: /usr/lib/x86_64-linux-gnu/libz.so.1 does not define malloc"),
    (["--json", "/no/such/folder", "true"],
     "minitc: /no/such/folder: its folder is missing or not writable"),
    (["--stdin", "/no/such", "true"], "minitc: /no/such: missing or not readable"),
    (["no-such-program"], "minitc: no-such-program: no such program")])
def test_bad_input(minitc, words, message):
  result = minitc("compare", *words)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr.splitlines()[-1].endswith(message)


def test_what_cannot_work_is_not_measured(minitc, compiled):
  """Five times the same would be the answer."""
  program = compiled("static", "-static")
  result = minitc("compare", "-n", "1", program)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr == (f"minitc: {program}: linked statically: no loader reads LD_PRELOAD\n"
                           "(--force measures it all the same)\n")
  assert minitc("compare", "-n", "1", "--force", "--with", "glibc", program).returncode == 0
