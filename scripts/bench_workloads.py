"""The benchmark's workloads: programs of test/bench with their options, and real programs."""
import csv
import dataclasses
import hashlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time

import bench_contestants
import bench_measure
import run_workload
from bench_contestants import BadInput
from bench_measure import BadRun

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "test" / "bench"
TIME_LIMIT_S = 600


@dataclasses.dataclass(frozen=True)
class Workload:
  """One row of the tables.

  words: the program and its arguments; {programs} and {work} stand for folders, {rounds} for
  rounds, scaled. figures: what the program reports itself, {its name: (our name, factor)}; a
  workload that has any is a probe, in a table of its own and in no geometric mean.
  """
  name: str
  words: tuple
  figures: dict = dataclasses.field(default_factory=dict)
  is_probe: bool = False
  is_quick: bool = True
  env: dict = dataclasses.field(default_factory=dict)
  stdin: str | None = None
  rounds: int = 0
  is_scaled: bool = True
  prepare: object = None  # called with the setup and itself before the first run
  run: object = None  # runs it in another way than run_program

  @property
  def is_own(self):
    return self.words[0].startswith("{programs}")


def own(name, program, *options, threads=(1,), quick=(), **more):
  """Rows for one program of test/bench, one for each number of threads. quick: the numbers of
  threads that the quick benchmark runs; the first one always is."""
  if threads == (1,):
    return [Workload(name, (f"{{programs}}/{program}", *options), **more)]
  return [Workload(f"{name}/{number}", (f"{{programs}}/{program}", *options, f"--threads={number}"),
                   is_quick=number == threads[0] or number in quick, **more)
          for number in threads]


MIB = 1 << 20


def own_workloads(threads=()):
  """All rows that compare programs of test/bench. threads: if given, the numbers of threads for
  those workloads that have several."""
  def among(*usual):
    return tuple(n for n in threads if n >= usual[0]) or usual

  every = among(1, 2, 8, 64)
  rows = [row for group in [
      own("pairs", "pairs", threads=every),
      own("ring-16-527", "ring", threads=every, quick=(8,)),
      own("ring-1k-17k", "ring", "--least=1024", "--most=17408", threads=among(1, 2)),
      own("ring-calloc", "ring", "--least=48", "--most=48", "--call=calloc"),
      own("server", "server", threads=every, quick=(8,)),
      own("producer-64", "producer", threads=among(2, 8, 64), quick=(8,)),
      own("producer-mixed", "producer", "--least=16", "--most=512", threads=among(2, 8)),
      own("crossing", "crossing", threads=among(2, 8, 64), quick=(8,)),
      own("phases", "phases", threads=every, quick=(8,)),
      own("pareto", "pareto", threads=among(1, 2, 8)),
      own("trees", "trees", threads=among(1, 2)),
      own("bulk-lifo", "bulk", "--order=lifo"),
      own("bulk-fifo", "bulk", "--order=fifo", threads=among(1, 2)),
      own("bulk-random", "bulk", "--order=random"),
      own("large", "large", threads=among(1, 2)),
      own("columns", "columns"),
      own("growth", "growth"),
      own("thread-churn", "thread_churn", threads=among(2, 8)),
      own("sharing-active", "sharing", "--way=active", threads=among(2, 8)),
      own("sharing-passive", "sharing", "--way=passive", threads=among(2, 8)),
      own("zeroed-small", "zeroed"),
      own("zeroed-large", "zeroed", f"--least={MIB // 4}", f"--most={4 * MIB}", "--slots=16",
          "--stride=16384", "--count=2000"),
      own("containers", "containers", threads=among(1, 2, 8)),
  ] for row in group]
  return [dataclasses.replace(row, is_quick=True) for row in rows] if threads else rows


PROBES = [row for rows in [
    own("growth-1g", "growth", "--vectors=1", f"--most={1024 * MIB}", "--count=43", is_probe=True,
        is_scaled=False, is_quick=False),
    own("live-bytes", "large", is_probe=True,
        figures={"live_peak_bytes": ("live peak, MiB", 1 / MIB)}),
    own("latency", "latency", is_probe=True, figures={
        "slowest_ns": ("slowest, us", 1e-3), "p9999_ns": ("99.99 %, us", 1e-3),
        "p999_ns": ("99.9 %, us", 1e-3)}),
] for row in rows]


def write_text(setup, _workload):
  """Words with some repetition: what a packer finds in text."""
  rng = random.Random(3)
  words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randrange(2, 10))) for _ in range(4000)]
  lines = (" ".join(rng.choices(words, k=12)) for _ in range(int(80_000 * setup.scale)))
  (setup.work / "text").write_text("\n".join(lines), encoding="ascii")


def write_sql(setup, _workload):
  text = run_workload.workload(max(1000, int(120_000 * setup.scale)))
  (setup.work / "work.sql").write_text(text, encoding="ascii")


def run_redis(setup, workload, contestant):
  """A server on the contestant, and Debian's redis-benchmark, on glibc, as its client. The time is
  the client's, for all requests; the rest of what it cost is the server's."""
  requests = {"SET": 300_000, "GET": 300_000, "LPUSH": 300_000, "LRANGE_100": 30_000}
  requests = {name: max(1000, int(n * setup.scale)) for name, n in requests.items()}
  with tempfile.TemporaryDirectory(dir=setup.work) as folder:
    # Not in the folder itself: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as socket_folder:
      socket = f"{socket_folder}/socket"
      server = [*workload.words, "--dir", folder, "--unixsocket", socket]
      env = bench_contestants.environment(contestant)
      if contestant.path is None:
        # Debian's redis-server is linked with jemalloc. libc in front of it brings glibc's back.
        env["LD_PRELOAD"] = bench_contestants.libc_path()
      with start(setup, server, env) as process:
        try:
          wait_for_redis(process, socket)
          rates = {}
          for name, number in requests.items():
            rates.update(ask_redis(socket, name, number))
          subprocess.run(["redis-cli", "-s", socket, "shutdown", "nosave"], check=True,
                         env=bench_contestants.clean_environment(), capture_output=True)
          cost, _ = finish(setup, process)
        finally:
          bench_measure.end(process)
  cost["wall_s"] = sum(number / rates[name] for name, number in requests.items())
  cost["figures"] = {f"{name}, 1000/s": rate / 1e3 for name, rate in rates.items()}
  return cost


def wait_for_redis(process, socket):
  deadline = time.monotonic() + 60
  while process.poll() is None and time.monotonic() < deadline:
    answer = subprocess.run(["redis-cli", "-s", socket, "ping"], capture_output=True, text=True,
                            env=bench_contestants.clean_environment(), check=False)
    if answer.stdout.strip() == "PONG":
      return
    time.sleep(0.02)
  raise BadRun(f"redis-server does not start: status {process.poll()}")


def ask_redis(socket, name, number):
  """Requests of one kind; gives {kind: requests per second}."""
  argv = ["redis-benchmark", "-s", socket, "-t", name.lower(), "-n", str(number), "-P", "16",
          "-c", "20", "-r", "100000", "-d", "100", "--csv"]
  done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S,
                        env=bench_contestants.clean_environment())
  for row in csv.reader(done.stdout.splitlines()):
    # LRANGE's row has a comment after the name.
    if done.returncode == 0 and row and row[0].split(" ")[0] == name:
      return {name: float(row[1])}
  raise BadRun(f"redis-benchmark {name}: status {done.returncode}\n{done.stdout}{done.stderr}")


PYTHON = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}

REAL = [
    Workload("redis", ("redis-server", "--port", "0", "--save", "", "--daemonize", "no"),
             run=run_redis),
    Workload("sqlite3", ("sqlite3", "-batch", "-init", os.devnull, ":memory:"),
             stdin="{work}/work.sql", prepare=write_sql),
    # By its full path: another python3 may bring a malloc of its own.
    Workload("python-json", ("/usr/bin/python3", f"{SOURCES}/work_json.py", "{rounds}"),
             env=PYTHON, rounds=2),
    Workload("python-dicts", ("/usr/bin/python3", f"{SOURCES}/work_dicts.py", "{rounds}"),
             env=PYTHON, rounds=2),
    Workload("g++", ("g++", "-std=c++20", "-O1", "-c", f"{SOURCES}/containers.cc", "-o",
                     "{work}/containers.o")),
    Workload("perl", ("perl", f"{SOURCES}/work.pl", "{rounds}"), env={"PERL_HASH_SEED": "0"},
             rounds=4),
    Workload("xz", ("xz", "-T2", "-1", "--block-size=512KiB", "-c", "{work}/text"),
             prepare=write_text),
    Workload("start", ("sh", "-c", "i=0; while [ $i -lt $0 ]; do /bin/true; i=$((i + 1)); done",
                       "{rounds}"), rounds=300),
]

# Programs so small that what a malloc needs for itself shows.
SMALL = [
    Workload("small-true", ("/bin/true",), is_probe=True),
    Workload("small-bc", ("bc", "{work}/sum.bc"), is_probe=True, stdin=os.devnull,
             prepare=lambda setup, _workload: (setup.work / "sum.bc").write_text(
                 "s = 0\nfor (i = 1; i < 2000; i++) s += i ^ 2\ns\nquit\n", encoding="ascii")),
]


def all_workloads(threads=()):
  return own_workloads(threads) + REAL + PROBES + SMALL


@dataclasses.dataclass(frozen=True)
class Setup:
  """Where things are, and how much work a run does."""
  programs: pathlib.Path
  work: pathlib.Path
  scale: float

  @property
  def report(self):
    return self.work / "measured.json"


def words_of(setup, workload):
  rounds = max(1, round(workload.rounds * setup.scale))
  words = [word.replace("{programs}", str(setup.programs)).replace("{work}", str(setup.work))
           .replace("{rounds}", str(rounds)) for word in workload.words]
  if workload.is_own and workload.is_scaled:
    words.append(f"--scale={setup.scale}")
  return words


def start(setup, words, env, stdin=None):
  return bench_measure.start(setup.programs / "measure", setup.report, words, env, stdin)


def finish(setup, process):
  """Waits for a program; gives what it cost and what it wrote."""
  out, err = bench_measure.wait(process, TIME_LIMIT_S)
  if process.returncode != 0:
    raise BadRun(f"status {process.returncode}: {err[-500:].decode(errors='replace').strip()}")
  return bench_measure.costs(setup.report), out


def run_program(setup, workload, contestant):
  """One whole run; gives what it cost, what it reported, and a digest of what it computed."""
  env = bench_contestants.environment(contestant, **workload.env)
  stdin = workload.stdin and workload.stdin.replace("{work}", str(setup.work))
  process = start(setup, words_of(setup, workload), env, stdin)
  try:
    cost, out = finish(setup, process)
  finally:
    bench_measure.end(process)
  computed = out
  if workload.is_own:
    lines = dict(line.split("=", 1) for line in out.decode().splitlines())
    computed = lines["checksum"].encode()
    cost["figures"] = {ours: float(lines[theirs]) * factor
                       for theirs, (ours, factor) in workload.figures.items()}
  cost["digest"] = hashlib.sha256(computed).hexdigest()
  return cost


def run(setup, workload, contestant):
  return (workload.run or run_program)(setup, workload, contestant)


def prepare(setup, workloads, find_words=words_of):
  """Makes what the workloads read, and says what is missing before hours of work are lost to it."""
  setup.work.mkdir(parents=True, exist_ok=True)
  for workload in workloads:
    program = find_words(setup, workload)[0]
    if shutil.which(program) is None:
      raise BadInput(f"{workload.name}: {program} is missing")
    if workload.prepare:
      workload.prepare(setup, workload)
