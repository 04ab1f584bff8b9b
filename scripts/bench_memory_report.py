"""Tables and charts of what bench_memory.py measured."""
import shutil
import statistics
import subprocess
import sys

import bench_report
from bench_contestants import OURS, BadInput
from bench_watch import END_STAGE

MIB = 1 << 20
NEAR = 1.03  # as good as the best
CHART_POINTS = 300
LEAD_IN_S = 2
MARK = "<!-- measured: make bench-memory DOCS=1 writes what is between these lines -->"


def against_best_other(medians):
  """Ours against the least of the others: (its name, ratio); or None where there is nothing to
  divide."""
  others = {name: value for name, value in medians.items() if name != OURS}
  if OURS not in medians or not others:
    return None
  best = min(others, key=others.get)
  if min(medians[OURS], others[best]) <= 0:
    return None
  return best, medians[OURS] / others[best]


def cell(values):
  """The median, and how far the repetitions go if that shows."""
  median = statistics.median(values)
  digits = 0 if abs(median) >= 1000 else 1 if abs(median) >= 10 else 2
  least, middle, most = (f"{value:.{digits}f}" for value in (min(values), median, max(values)))
  return middle if least == most else f"{middle} ({least}-{most})"


def rows(workloads, is_compared):
  """(title, {contestant: [value of each repetition]}) of the figures that are compared, or of those
  that are not."""
  for workload in workloads:
    for figure, values in bench_report.figures_of(workload).items():
      if (figure in workload["compared"]) == is_compared and any(map(any, values.values())):
        yield f"{workload['name']}: {figure}", values


def figures_table(chosen, names):
  lines = []
  for title, values in chosen:
    pairing = against_best_other({name: statistics.median(v) for name, v in values.items()})
    lines.append([title, *(cell(values[name]) if name in values else "" for name in names),
                  "{1:.2f} {0}".format(*pairing) if pairing else ""])
  return bench_report.table(["", *names, f"{OURS} / best other"], lines)


def summary(chosen):
  pairings = {title: against_best_other({name: statistics.median(v) for name, v in values.items()})
              for title, values in chosen}
  pairings = {title: pairing for title, pairing in pairings.items() if pairing}
  behind = [f"{title} ({ratio:.2f})" for title, (_, ratio) in pairings.items() if ratio > NEAR]
  return (f"{OURS} is best or within {NEAR - 1:.0%} of the best in "
          f"{len(pairings) - len(behind)} of {len(pairings)}"
          + (f"; not in {', '.join(behind)}" if behind else "") + ".")


def tables(result):
  """The whole report as markdown."""
  info = result["machine"]
  names = list(info["contestants"])
  parts = [
      f"{info['time']}, {info['processor']}, {info['processors']} processors, kernel "
      f"{info['kernel']}, {info['libc']}, huge pages {info['huge_pages']}; {info['repetitions']} "
      f"repetitions, scale {info['scale']}, pace {info['pace']}"
      + (", quick" if info["is_quick"] else "")]
  compared, others = (list(rows(result["workloads"], which)) for which in (True, False))
  if compared:
    parts += ["## What is compared: the least is the best", figures_table(compared, names),
              summary(compared)]
  if others:
    parts += ["## More about the same runs", figures_table(others, names)]
  if result["failures"]:
    parts += ["## Failed runs", "\n".join(f"- {failure}" for failure in result["failures"])]
  return "\n\n".join(parts) + "\n"


def series(samples):
  """Seconds, MiB resident, MiB live: a few hundred samples. Time 0 is when the program says that
  what is to be seen begins; they end before it clears up."""
  begin = next((seconds for seconds, _, _, stage in samples if stage > 0), 0)
  shown = [(seconds - begin, rss / MIB, live / MIB) for seconds, rss, live, stage in samples
           if seconds >= begin - LEAD_IN_S and stage < END_STAGE]
  return shown[::max(1, len(shown) // CHART_POINTS)]


def panel(number, name, points, is_last):
  """gnuplot's commands for one contestant: RSS over what is live."""
  colour = bench_report.OUR_COLOUR if name == OURS else bench_report.COLOURS[number]
  data = "\n".join("{:.2f} {:.1f} {:.1f}".format(*point) for point in points)
  return "\n".join([
      f"$d{number} << EOD\n{data}\nEOD",
      f"set ylabel '{name}' font ',14' offset -1",
      "set key at screen 0.97, screen 0.985 top right horizontal" if number == 0 else "unset key",
      f"set format x '{'%g s' if is_last else ''}'",
      f"plot $d{number} using 1:3 with filledcurves y1=0 lc rgb '#c4c4c4' title 'live', "
      f"$d{number} using 1:2 with lines lw 1.6 lc rgb '{colour}' title 'RSS'",
      "unset label"])


def chart(workload, names, path):
  """An SVG: a panel for each contestant, all with the same axes."""
  shown = {name: series(workload["samples"][name]) for name in names if name in workload["samples"]}
  shown = {name: some for name, some in shown.items() if some}
  if not shown:
    return
  points = [point for some in shown.values() for point in some]
  first, last = min(point[0] for point in points), max(point[0] for point in points)
  most = max(point[1] for point in points)
  panels = "\n".join(panel(number, name, some, number == len(shown) - 1)
                     for number, (name, some) in enumerate(shown.items()))
  script = "\n".join([
      f"set terminal svg size 900,{80 + 120 * len(shown)} font 'sans,12' background 'white'",
      f"set output '{path}'",
      f"set label '{workload['title']}, MiB' at screen 0.1, screen 0.97 font ',14'",
      f"set multiplot layout {len(shown)},1 margins 0.1,0.97,0.06,0.93 spacing 0,0.025",
      f"set xrange [{first}:{last}]", f"set yrange [0:{most * 1.05}]",
      f"set ytics {200 if most < 900 else 400} nomirror", "set xtics nomirror",
      "set grid ytics lt 1 lc rgb '#e0e0e0'", "set border 3", panels, "unset multiplot", ""])
  subprocess.run(["gnuplot"], input=script, text=True, check=True, stdout=subprocess.DEVNULL)


def charts(result, folder):
  """One for each workload that is to have one: what is resident over time, against what is live."""
  if shutil.which("gnuplot") is None:
    print("no charts: gnuplot is not installed", file=sys.stderr)
    return
  for workload in result["workloads"]:
    if "samples" in workload:
      chart(workload, list(result["machine"]["contestants"]), folder / f"{workload['name']}.svg")


def split(document):
  """A document before, between and behind its two marks."""
  parts = document.read_text(encoding="utf-8").split(MARK)
  if len(parts) != 3:
    raise BadInput(f"{document}: not two lines {MARK}")
  return parts


def publish(result, folder, document):
  """Replaces what stands between two marks in a document, and the charts that it shows."""
  before, _, behind = split(document)
  # The document's own headings stand one level higher.
  tables_text = tables(result).replace("\n## ", "\n### ")
  document.write_text(f"{before}{MARK}\n\n{tables_text}\n{MARK}{behind}", encoding="utf-8")
  for workload in result["workloads"]:
    if "samples" in workload:
      name = f"{workload['name']}.svg"
      shutil.copyfile(folder / name, document.with_name(f"{document.stem}-{name}"))
