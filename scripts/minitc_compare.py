"""The user's own command on several mallocs: the command minitc's compare."""
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import rich.box
import rich.console
import rich.progress
import rich.table

import bench_contestants
import bench_measure
import bench_report
import minitc_check
from bench_contestants import OURS, PLAIN, BadInput
from bench_measure import BadRun

LAST_WORDS = 500  # bytes of a failed command's stderr
STOP_SECONDS = 60  # for a server to end after SIGTERM
BY_OTHER_NAME = {"tcmalloc": "gperftools"}
HERE = pathlib.Path(__file__).resolve().parent
# Installed beside this file, or built.
MEASURE = (HERE / "measure", HERE.parent / "build" / "test" / "bench" / "measure")


@dataclasses.dataclass(frozen=True)
class Job:
  """What is run: a command, or a server and the command that keeps it busy."""
  words: list
  load: list
  stdin: str | None
  seconds: float | None
  measure: pathlib.Path
  folder: pathlib.Path


def find_measure():
  for path in MEASURE:
    if path.is_file():
      return path
  raise BadInput(f"{MEASURE[-1]} is missing: run make {MEASURE[-1].relative_to(HERE.parent)}")


def gather(lib, wanted, rivals):
  """The contestants. wanted: names and name=path with commas between them; else all that are there.
  rivals: the allocators that the program is linked with. libc in front of them brings glibc's back."""
  entries = list(filter(None, (wanted or "").split(",")))
  peers = [entry for entry in entries if "=" in entry]
  names = [BY_OTHER_NAME.get(entry, entry) for entry in entries if "=" not in entry]
  if not entries:
    names = [PLAIN, *bench_contestants.installed()]
  names += [entry.partition("=")[0] for entry in peers]
  found = bench_contestants.gather(lib, ",".join(peers), ",".join([*names, OURS]))
  if len(found) < 2:
    raise BadInput("nothing to compare with")
  if rivals:
    found = [dataclasses.replace(c, path=bench_contestants.libc_path()) if c.name == PLAIN else c
             for c in found]
  return found


def environment(contestant):
  """The user's, with the contestant's library at the end of LD_PRELOAD; without those of others."""
  known = {OURS: "libminitc.so", **bench_contestants.PACKAGED}.values()
  env = dict(os.environ)
  kept = [entry for entry in minitc_check.preload_list(env.pop("LD_PRELOAD", None))
          if os.path.basename(entry) not in known]
  kept += [contestant.path] if contestant.path else []
  return {**env, "LD_PRELOAD": ":".join(kept)} if kept else env


def describe_status(status):
  """Also of a program below measure, which tells a signal as a shell does."""
  with contextlib.suppress(ValueError):
    return f"ended by {signal.Signals(status - 128).name}"
  return f"status {status}"


def last_words(file):
  file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS))
  return file.read().decode(errors="replace").strip()


def drive(job, process, noise):
  """Runs the load and then ends the server; gives the seconds that the load took."""
  begin = time.monotonic()
  # In a session of its own, to be ended with all that it started.
  load = subprocess.Popen(job.load, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=noise, start_new_session=True)
  try:
    load.wait(job.seconds)
  except subprocess.TimeoutExpired:
    raise BadRun(f"the load did not end after {job.seconds:g} s") from None
  finally:
    bench_measure.end(load)
  wall = time.monotonic() - begin
  if load.returncode != 0:
    status = load.returncode if load.returncode > 0 else 128 - load.returncode
    raise BadRun(f"the load: {describe_status(status)}: {last_words(noise)}")
  # measure's child alone: measure has to stay and report.
  children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
  if not children or process.poll() is not None:
    raise BadRun(f"the server ended before its load did: {last_words(noise)}")
  with contextlib.suppress(ProcessLookupError):  # it may end at this very moment
    os.kill(int(children[0]), signal.SIGTERM)
  return wall


def run_once(job, contestant):
  """One run; gives what it cost."""
  report = job.folder / "measured.json"
  with tempfile.TemporaryFile() as noise:
    process = bench_measure.start(job.measure, report, job.words, environment(contestant), job.stdin,
                                  stdout=subprocess.DEVNULL, stderr=noise)
    try:
      if not job.load:
        bench_measure.wait(process, job.seconds)
        wall = None
      else:
        wall = drive(job, process, noise)
        bench_measure.wait(process, STOP_SECONDS)
    finally:
      bench_measure.end(process)
    # A server may well end by the signal that it was sent.
    if process.returncode not in ((0, 128 + signal.SIGTERM) if job.load else (0,)):
      raise BadRun(f"{describe_status(process.returncode)}: {last_words(noise)}".rstrip(": "))
    cost = bench_measure.costs(report)
  return cost if wall is None else {**cost, "wall_s": wall}


def measure(job, contestants, repetitions):
  """Gives the runs and the failures by contestant, behind a progress bar on the terminal."""
  failures = {}
  console = rich.console.Console(stderr=True)
  console.quiet = not console.is_terminal
  columns = [rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(),
             rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn()]
  with rich.progress.Progress(*columns, console=console, transient=True) as progress:
    task = progress.add_task("", total=repetitions * len(contestants))

    def run(contestant):
      progress.update(task, description=f"{contestant.name:<10}")
      cost = run_once(job, contestant)
      progress.advance(task)
      return cost

    def failed(contestant, problem):
      failures[contestant.name] = str(problem)
      progress.update(task, total=repetitions * (len(contestants) - len(failures)))

    return bench_measure.in_turn(contestants, repetitions, run, failed), failures


def summarize(result):
  """{contestant: {cost: median, least, most, spread, and the ratio to the best}}."""
  summary = {}
  for cost, *_ in bench_report.COSTS:
    ratios = bench_report.ratios(result, cost)
    for name, runs in result["runs"].items():
      values = [run[cost] for run in runs]
      summary.setdefault(name, {})[cost] = {
          "median": statistics.median(values), "least": min(values), "most": max(values),
          "spread": bench_report.spread_of(values), "ratio": ratios[name]}
  return summary


def number(value):
  """Three digits, and no fewer than the whole ones."""
  return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def show(result, console):
  """The table, and what it says of this library."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
                           padding=(0, 1, 0, 0), caption_justify="left",
                           caption="medians, ± half of the spread; x: how many times the best")
  table.add_column("", no_wrap=True)
  for _, title, unit, _ in bench_report.COSTS:
    head = title.replace(" ", "\n") + (f", {unit}" if unit else "")
    table.add_column(head, justify="right", no_wrap=True)
    table.add_column("x", justify="right", no_wrap=True)
  for name in result["contestants"]:
    cells = ["failed"]
    if name in result["summary"]:
      cells = [cell for cost, _, _, factor in bench_report.COSTS
               for row in [result["summary"][name][cost]]
               for cell in (f"{number(row['median'] * factor)} ±{row['spread'] / 2:.0%}",
                            f"{row['ratio']:.2f}")]
    table.add_row(name, *cells, style="bold" if name == OURS else None)
  console.print(table)
  pairs = [(title, bench_report.against(result, cost, PLAIN))
           for cost, title, _, _ in bench_report.COSTS]
  if pairs[0][1]:
    # Where even the repetitions disagree, no difference is shown.
    parts = [f"{title[0].lower()}{title[1:]} {median:.2f}"
             + (f" (unsure: {least:.2f} to {most:.2f})" if least < 1 < most else "")
             for title, (median, least, most) in pairs]
    console.print(f"{OURS} divided by {PLAIN}: {', '.join(parts)}", highlight=False)
  for name, problem in result["failures"].items():
    console.print(f"{name} failed: {problem}", highlight=False, markup=False)


def chart(result, path):
  """An SVG: a panel for each cost, a bar for each contestant, whiskers from the least to the most."""
  names = [name for name in result["contestants"] if name in result["summary"]]
  panels = []
  for index, (cost, title, unit, factor) in enumerate(bench_report.COSTS):
    lines = [f"{row} {values['median'] * factor} {values['least'] * factor} "
             f"{values['most'] * factor} "
             f"{int((bench_report.OUR_COLOUR if name == OURS else bench_report.COLOURS[0])[1:], 16)}"
             for row, name in enumerate(names) for values in [result["summary"][name][cost]]]
    panels.append("\n".join([
        f"$p{index} << EOD", *lines, "EOD",
        f"set title '{title}{', ' + unit if unit else ''}'",
        f"plot $p{index} using 1:2:5 with boxes lc rgb variable notitle, "
        f"$p{index} using 1:2:3:4 with yerrorbars lc rgb 'black' pt 0 notitle"]))
  labels = ", ".join(f"'{name}' {row}" for row, name in enumerate(names))
  command = " ".join(shlex.join(result["command"]).replace("'", '"').split())
  script = "\n".join([
      "set terminal svg size 900,640 noenhanced font 'sans,11' background 'white'",
      f"set multiplot layout 2,2 title '{command[:100]}' noenhanced",
      f"set xtics ({labels}) nomirror", f"set xrange [-0.6:{len(names) - 0.4}]", "set yrange [0:*]",
      "set boxwidth 0.7", "set style fill solid 0.8", "set pointintervalbox 0", "set grid ytics lc rgb '#cccccc'",
      *panels, "unset multiplot", ""])
  with open(path, "w", encoding="utf-8") as file:
    subprocess.run(["gnuplot"], input=script, text=True, check=True, stdout=file)


def write(result, args):
  if args.json == "-":
    json.dump(result, sys.stdout, indent=1)
    print()
  elif args.json:
    with open(args.json, "w", encoding="utf-8") as file:
      json.dump(result, file, indent=1)
      file.write("\n")
  if args.svg and result["summary"]:
    chart(result, args.svg)


def compare(args, lib):
  """Gives the exit status: 0, or 1 if the command failed on one of them."""
  verdict = minitc_check.check_command(args.command, lib, os.environ)
  if not verdict.works and not args.force:
    raise BadInput(f"{verdict}\n(--force measures it all the same)")
  if args.svg and shutil.which("gnuplot") is None:
    raise BadInput("--svg needs gnuplot: apt-get install gnuplot-nox")
  for path in filter(None, (args.svg, args.json)):
    if path != "-" and not os.access(os.path.dirname(path) or ".", os.W_OK):
      raise BadInput(f"{path}: its folder is missing or not writable")
  if args.stdin and not os.access(args.stdin, os.R_OK):
    raise BadInput(f"{args.stdin}: missing or not readable")
  contestants = gather(lib, args.contestants, verdict.rivals)
  with tempfile.TemporaryDirectory(prefix="minitc-") as folder:
    job = Job(args.command, args.load, args.stdin, args.timeout, find_measure(),
              pathlib.Path(folder))
    runs, failures = measure(job, contestants, args.n)
  result = {"command": args.command, "load_command": job.load, "repetitions": args.n,
            "machine": bench_measure.machine(),
            "contestants": bench_contestants.paths(contestants), "runs": runs, "failures": failures}
  result["summary"] = summarize(result)
  show(result, rich.console.Console(stderr=args.json == "-"))
  write(result, args)
  return 1 if failures else 0
