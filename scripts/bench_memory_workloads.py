"""What the benchmark of memory runs, how one run is watched, and what is read off it."""
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
import xml.etree.ElementTree as xml

import bench_contestants
import bench_measure
import bench_watch
import bench_workloads
from bench_contestants import OURS
from bench_measure import BadRun

MIB = 1 << 20
TIME_LIMIT_S = 900


@dataclasses.dataclass(frozen=True)
class Workload:
  """A few rows of the tables.

  words: the program and its arguments; {programs} and {work} stand for folders, {rounds} for
  rounds, scaled. seconds: how long it is told to last. quick_scale: how much of its work the quick
  benchmark does. figures: called with the Run, gives {name of a figure: number}. compared: those of
  which the least is the best. is_paced: it follows the clock and leaves the processors idle, so
  that all contestants run at the same time. title: what stands above its chart, if it has one.
  """
  name: str
  words: tuple
  figures: object
  compared: tuple
  seconds: int = 0
  rounds: int = 0
  quick_scale: float = 0.25
  is_paced: bool = False
  title: str = ""
  env: dict = dataclasses.field(default_factory=dict)
  stdin: str | None = None
  prepare: object = None  # called with the setup and itself before the first run
  run: object = None  # runs it in another way than run_watched

  @property
  def is_own(self):
    return self.words[0].startswith("{programs}")


@dataclasses.dataclass(frozen=True)
class Setup:
  """Where things are, how much work a run does, and how fast time passes for those that are told
  how long to last."""
  programs: pathlib.Path
  work: pathlib.Path
  scale: float
  pace: float
  is_quick: bool

  def scale_of(self, workload):
    return self.scale * (workload.quick_scale if self.is_quick else 1)


@dataclasses.dataclass(frozen=True)
class Run:
  """What one run left: samples of its memory and the most in huge pages, what it said in lines
  NAME=VALUE, and what the malloc reported of itself, if it is ours: {type: bytes}."""
  samples: list
  most_huge: int
  said: dict
  report: dict

  def stage(self, *stages):
    """The samples of some stages."""
    found = [sample for sample in self.samples if sample.stage in stages]
    if not found:
      raise BadRun(f"it ended too early: no sample in stage {stages}")
    return found

  def after(self, stage, seconds):
    """The first sample that is so many seconds into a stage, or the last one of it."""
    found = self.stage(stage)
    return next((s for s in found if s.seconds - found[0].seconds >= seconds), found[-1])

  @property
  def peak(self):
    return max(sample.rss for sample in self.samples)


# --- What is read off a run ----------------------------------------------------------------------


def ratio(samples):
  return sum(s.rss for s in samples) / max(sum(s.live for s in samples), 1)


def rise(samples):
  """By how much a straight line through RSS - live rises, in percent of the mean of what is live,
  or of RSS where that is not known. Not through the ratio, which goes with what is live."""
  if len(samples) < 3:
    raise BadRun("it ended too early: fewer than three samples")
  seconds = [s.seconds for s in samples]
  line = statistics.linear_regression(seconds, [s.rss - s.live for s in samples])
  base = statistics.fmean(s.live or s.rss for s in samples)
  return 100 * line.slope * (seconds[-1] - seconds[0]) / base


def last(samples, part):
  return samples[-max(3, round(len(samples) * part)):]


REPORTED = "live", "thread-cached", "central", "page-heap-free", "metadata"
NIGHTS = 6
AFTER_S = 1, 5, 30


def nightly_figures(run):
  return {
      "RSS / live at the end": ratio(run.stage(NIGHTS + 1)),
      "RSS / live over the last night": ratio(run.stage(NIGHTS)),
      "peak RSS / peak live": run.peak / max(s.live for s in run.samples),
      "rise of RSS - live over the last third, % of live": rise(run.stage(NIGHTS - 1, NIGHTS)),
      "behind the clock at the end, s": int(run.said["late_ms"]) / 1e3,
  }


def peak_figures(run):
  figures = {"peak RSS / peak live": run.peak / max(s.live for s in run.samples)}
  watched_s = run.stage(2)[-1].seconds - run.stage(2)[0].seconds
  for seconds in AFTER_S:
    if seconds <= watched_s + 0.5:
      figures[f"RSS {seconds} s after the frees, MiB"] = run.after(2, seconds).rss / MIB
  if run.report:
    figures["metadata at the peak, % of the heap"] = (100 * run.report["metadata"]
                                                      / run.report["live"])
  return figures


def frees_figures(run):
  return {"RSS after the frees, % of the peak": 100 * run.stage(2)[-1].rss / run.peak,
          "peak RSS / peak live": run.peak / max(s.live for s in run.samples)}


def end_figures(run):
  """Of programs of which it is not known what is live."""
  return {"RSS at the end, MiB": statistics.fmean(s.rss for s in run.samples[-3:]) / MIB,
          "peak RSS, MiB": run.peak / MIB,
          "rise of RSS over the last half, %": rise(last(run.samples, 1 / 2))}


def survivors_figures(run):
  return {"RSS / live at the end": ratio(run.stage(2)[-3:]),
          "peak RSS / peak live": run.peak / max(s.live for s in run.samples),
          "rise of RSS - live, % of live": rise(run.stage(1, 2))}


def idle_figures(run):
  grown = run.stage(3)[-1].rss - run.stage(1)[-1].rss
  return {"RSS for idle caches, MiB": grown / MIB}


def hysteresis_figures(run):
  said = {name: int(value) for name, value in run.said.items()}
  wall_s = said["wall_us"] / 1e6
  return {"kernel's share of the time, %":
          100 * said["system_us"] / max(said["user_us"] + said["system_us"], 1),
          "calls that map or return memory, per second": run.said["calls_per_s"],
          "page faults per second": said["faults"] / wall_s,
          "ms per round": 1e3 * wall_s / said["rounds"]}


# --- One run -------------------------------------------------------------------------------------


def words_of(setup, workload):
  scale = setup.scale_of(workload)
  words = [word.replace("{programs}", str(setup.programs)).replace("{work}", str(setup.work))
           .replace("{rounds}", str(max(3, round(workload.rounds * scale))))
           for word in workload.words]
  if workload.is_own:
    words.append(f"--scale={scale}")
  if workload.seconds:
    words.append(f"--seconds={max(1, round(workload.seconds * setup.pace))}")
  return words


@contextlib.contextmanager
def started(words, env, stdin=None):
  """A process in a session of its own, which is ended with it, and the two files of its output."""
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    with open(stdin or os.devnull, "rb") as source:
      process = subprocess.Popen(words, env=env, stdin=source, stdout=out, stderr=err,
                                 start_new_session=True)
    try:
      yield process, out, err
    finally:
      bench_measure.end(process)


def output(process, out, err):
  """What a process wrote that has ended."""
  if process.returncode != 0:
    err.seek(0)
    raise BadRun(f"status {process.returncode}: {err.read()[-500:].decode(errors='replace')}")
  out.seek(0)
  return out.read()


def said_by(text):
  return dict(line.split("=", 1) for line in text.decode().splitlines())


def read_report(path, contestant):
  """What our malloc_info says: {type: bytes}."""
  if contestant.name != OURS or not path.exists():
    return {}
  return {row.get("type"): int(row.get("size")) for row in xml.parse(path).iter("system")}


def run_watched(setup, workload, contestant):
  """Gives the Run, and a digest of what was computed."""
  words = words_of(setup, workload)
  page_path = setup.work / f"{workload.name}.{contestant.name}.page"
  report_path = page_path.with_suffix(".report")
  report_path.unlink(missing_ok=True)
  page = bench_watch.Page(page_path)
  if workload.is_own:
    words += [f"--show={page_path}", f"--report={report_path}"]
  stdin = workload.stdin and workload.stdin.replace("{work}", str(setup.work))
  env = bench_contestants.environment(contestant, **workload.env)
  with started(words, env, stdin) as (process, out, err):
    samples, most_huge = bench_watch.watch(process, page, TIME_LIMIT_S)
    text = output(process, out, err)
  said = said_by(text) if workload.is_own else {}
  computed = said["checksum"].encode() if workload.is_own else text
  report = read_report(report_path, contestant)
  return Run(samples, most_huge, said, report), hashlib.sha256(computed).hexdigest()


MEMORY_CALLS = "madvise,munmap,mmap,mremap,mprotect,brk"


def count_calls(words, contestant, path):
  """How many system calls that map or return memory a program makes. By seccomp, so that others
  cost nothing."""
  # strace itself is not to run on the contestant.
  preload = [] if contestant.path is None else ["-E", f"LD_PRELOAD={contestant.path}"]
  words = ["strace", "-f", "-c", "--seccomp-bpf", "-o", path, "-e", f"trace={MEMORY_CALLS}",
           *preload, *words]
  with started(words, bench_contestants.clean_environment()) as (process, out, err):
    process.wait(TIME_LIMIT_S)
    output(process, out, err)
  rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
  return sum(int(row[3]) for row in rows if row and row[-1] in MEMORY_CALLS.split(","))


def run_counted(setup, workload, contestant):
  """Then runs it a second time, to count its system calls."""
  run, digest = run_watched(setup, workload, contestant)
  begin = time.monotonic()
  calls = count_calls(words_of(setup, workload), contestant,
                      setup.work / f"{workload.name}.{contestant.name}.calls")
  run.said["calls_per_s"] = calls / (time.monotonic() - begin)
  return run, digest


# --- redis ---------------------------------------------------------------------------------------

REDIS_KEYS = 700_000, 400_000
REDIS_VALUES = 240, 492
REDIS_MAXMEMORY = 200 * MIB
REDIS_SETTLE_S = 2


def fill_redis(socket, database, keys, value_bytes):
  value = b"x" * value_bytes
  with subprocess.Popen(["redis-cli", "-s", socket, "-n", str(database), "--pipe"],
                        env=bench_contestants.clean_environment(), stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE) as client:
    for first in range(0, keys, 1000):
      client.stdin.write(b"".join(
          b"*3\r\n$3\r\nSET\r\n$12\r\nkey:%08d\r\n$%d\r\n%s\r\n" % (n, value_bytes, value)
          for n in range(first, min(first + 1000, keys))))
    out, _ = client.communicate()
  if client.returncode != 0 or b"errors: 0," not in out:
    raise BadRun(f"redis-cli --pipe: status {client.returncode}: {out.decode(errors='replace')}")


def ask_redis(socket, *words):
  return subprocess.run(["redis-cli", "-s", socket, *words], check=True, text=True,
                        env=bench_contestants.clean_environment(), capture_output=True).stdout


def redis_bytes(keys, value_bytes):
  """What redis 7 asks a malloc for in a database of short keys: an entry, the key with its header,
  the object, the value with its header; and a table of pointers."""
  entry = 24 + (3 + 12 + 1) + 16 + ((3 if value_bytes < 256 else 5) + value_bytes + 1)
  return keys * entry + 8 * (1 << max(keys - 1, 1).bit_length())


def run_redis(setup, workload, contestant):
  """Keys of one size fill a server up to its limit; then keys of another size, in a database of
  their own so that they can be counted, drive them out. used_memory, by which redis judges, has
  each malloc's own rounding in it, and so a server holds a little more on one than on another: RSS
  is compared with the bytes of the keys that are there."""
  scale = setup.scale_of(workload)
  env = bench_contestants.environment(contestant)
  if contestant.path is None:
    env["LD_PRELOAD"] = bench_contestants.libc_path()  # redis-server is linked with jemalloc
  with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
    socket = f"{folder}/socket"
    words = [*workload.words, "--dir", folder, "--unixsocket", socket,
             "--maxmemory", str(int(REDIS_MAXMEMORY * scale))]
    with started(words, env) as (process, out, err):
      bench_workloads.wait_for_redis(process, socket)
      for database, (keys, value_bytes) in enumerate(zip(REDIS_KEYS, REDIS_VALUES)):
        fill_redis(socket, database, max(1000, int(keys * scale)), value_bytes)
      time.sleep(REDIS_SETTLE_S)
      there = [int(ask_redis(socket, "-n", str(n), "dbsize")) for n in range(2)]
      memory = dict(line.split(":", 1) for line in ask_redis(socket, "info", "memory").splitlines()
                    if ":" in line)
      rss = bench_watch.resident(process.pid)
      peak = bench_watch.field(f"/proc/{process.pid}/status", "VmHWM")
      ask_redis(socket, "shutdown", "nosave")
      process.wait(TIME_LIMIT_S)
      output(process, out, err)
  live = sum(map(redis_bytes, there, REDIS_VALUES))
  said = {"live": live, "used": int(memory["used_memory"]), "there": there, "rss": rss,
          "peak": peak}
  return Run([], 0, said, {}), None


def redis_figures(run):
  return {"RSS / bytes of the keys": run.said["rss"] / run.said["live"],
          "peak RSS / bytes of the keys": run.said["peak"] / run.said["live"],
          "RSS / used_memory": run.said["rss"] / run.said["used"],
          "RSS, MiB": run.said["rss"] / MIB,
          "keys of the first size left": run.said["there"][0],
          "keys of the second size": run.said["there"][1]}


# --- The list ------------------------------------------------------------------------------------

SQL_ROUND = """
INSERT INTO item SELECT {n} * 1000000 + value, value % 100,
  printf('%.*c', 8 + value * 7919 % 1500, 'x') FROM generate_series(1, {rows});
DELETE FROM item WHERE id < ({n} - 2) * 1000000 AND id % 10 <> 0 OR id < ({n} - 12) * 1000000;
UPDATE item SET name = substr(name, 1, 40) || printf('%.*c', id % 700, 'y') WHERE id % 7 = {n} % 7;
CREATE INDEX by_name ON item(grp, name);
CREATE TEMP TABLE summary AS SELECT grp, count(*) AS n, group_concat(substr(name, 1, 20)) AS names
  FROM item GROUP BY grp;
SELECT count(*), sum(length(names)) FROM summary;
DROP TABLE summary;
DROP INDEX by_name;
"""


def write_sql(setup, workload):
  rounds = max(16, round(24 * setup.scale_of(workload)))
  rows = max(100, round(10_000 * min(setup.scale, 1)))
  text = "CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, name TEXT);\n"
  text += "".join(SQL_ROUND.format(n=n, rows=rows) for n in range(1, rounds + 1))
  (setup.work / "rounds.sql").write_text(f".bail on\n{text}.shell sleep 0.3\n", encoding="ascii")


REDIS = ("redis-server", "--port", "0", "--save", "", "--daemonize", "no", "--maxmemory-policy")
AT_END, AT_END_MIB = "RSS / live at the end", "RSS at the end, MiB"

WORKLOADS = [
    *(Workload(f"redis-{policy}", (*REDIS, f"allkeys-{policy}"), redis_figures,
               ("RSS / bytes of the keys",), run=run_redis) for policy in ("lru", "random")),
    Workload("nightly", ("{programs}/nightly", f"--nights={NIGHTS}"), nightly_figures,
             (AT_END, "RSS / live over the last night"), seconds=180, quick_scale=1, is_paced=True,
             title="Days and nights of a server of 32 threads"),
    Workload("sqlite-rounds", ("sqlite3", "-batch", "-init", os.devnull, ":memory:"), end_figures,
             (AT_END_MIB,), stdin="{work}/rounds.sql", prepare=write_sql),
    # By its full path: another python3 may bring a malloc of its own.
    Workload("python-rounds", ("/usr/bin/python3", f"{bench_workloads.SOURCES}/work_cache.py",
                               "{rounds}"), end_figures, (AT_END_MIB,),
             env=bench_workloads.PYTHON, rounds=60),
    Workload("survivors", ("{programs}/survivors",), survivors_figures, (AT_END,)),
    Workload("peak", ("{programs}/peak",), peak_figures,
             tuple(f"RSS {seconds} s after the frees, MiB" for seconds in AFTER_S), seconds=31,
             is_paced=True, quick_scale=1, title="A peak of 1 GiB, and what is left of it"),
    *(Workload(name, ("{programs}/frees", *words), frees_figures,
               ("RSS after the frees, % of the peak",), quick_scale=0.1)
      for name, words in (("frees", ()), ("frees-but-1-of-1000", ("--keep=1000",)))),
    Workload("hysteresis", ("{programs}/hysteresis",), hysteresis_figures, (), seconds=10,
             run=run_counted, quick_scale=1),
    Workload("idle-caches", ("{programs}/idle_caches",), idle_figures,
             ("RSS for idle caches, MiB",), quick_scale=1),
]


def run(setup, workload, contestant):
  """One run; gives {"figures": …, "digest": …, "samples": …}."""
  done, digest = (workload.run or run_watched)(setup, workload, contestant)
  figures = workload.figures(done)
  figures["in huge pages, MiB"] = done.most_huge / MIB
  figures.update({f"{where}, MiB, by its own report": done.report[where] / MIB
                  for where in REPORTED if done.report})
  return {"figures": figures, "digest": digest, "samples": done.samples}
