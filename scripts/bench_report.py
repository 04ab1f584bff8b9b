"""Tables and a chart of what bench.py measured."""
import math
import shutil
import statistics
import subprocess
import sys

from bench_contestants import OURS

# The costs that are compared: name in the result, title, unit, factor to that unit.
COSTS = [("wall_s", "Time", "s", 1), ("cpu_s", "Processor time", "s", 1),
         ("peak_kib", "Peak RSS", "MiB", 1 / 1024), ("faults", "Page faults", "", 1)]
BEHIND = 1.05
OUR_COLOUR = "#d62728"
COLOURS = ["#7f7f7f", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"]


def medians(workload, cost):
  """{contestant: median}, of those that ran the workload."""
  return {name: statistics.median(run[cost] for run in runs)
          for name, runs in workload["runs"].items() if runs}


def ratios(workload, cost):
  """{contestant: median, divided by the least of all contestants}."""
  values = medians(workload, cost)
  best = max(min(values.values(), default=0), 1e-9)
  return {name: value / best for name, value in values.items()}


def spread_of(values):
  """How far repetitions lie apart: (most - least) / median."""
  median = statistics.median(values)
  return (max(values) - min(values)) / median if median > 0 else 0


def spread(workload, cost):
  """The median over all contestants of how far their repetitions lie apart."""
  parts = [spread_of([run[cost] for run in runs]) for runs in workload["runs"].values() if runs]
  return statistics.median(parts) if parts else 0


def against(workload, cost, other):
  """Ours divided by another in the same repetition: (median of the ratios, least, most); or None."""
  pairs = [mine[cost] / max(theirs[cost], 1e-9) for mine, theirs in
           zip(workload["runs"].get(OURS, ()), workload["runs"].get(other, ()))]
  return (statistics.median(pairs), min(pairs), max(pairs)) if pairs else None


def against_best_other(workload, cost):
  """Ours against the one of the others that is best by its median: (its name, median of the ratios,
  least, most); or None."""
  others = {name: value for name, value in medians(workload, cost).items() if name != OURS}
  if not others or not workload["runs"].get(OURS):
    return None
  best = min(others, key=others.get)
  return best, *against(workload, cost, best)


def geometric_means(workloads, cost, names):
  """{contestant: geometric mean of its ratios}, over workloads that all of them ran."""
  common = [ratios(w, cost) for w in workloads]
  common = [row for row in common if set(names) <= row.keys()]
  if not common:
    return {}
  return {name: math.exp(statistics.fmean(math.log(max(row[name], 1e-9)) for row in common))
          for name in names}


def table(head, rows):
  """A markdown table whose columns are aligned in the source too; all but the first to the right."""
  widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

  def line(row):
    cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]
    return "| " + " | ".join(cells) + " |"

  rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
  return "\n".join([line(head), "| " + " | ".join(rule) + " |", *map(line, rows)])


def cell(value, digits=2):
  return "failed" if value is None else f"{value:.{digits}f}"


def cost_table(workloads, cost, unit, factor, names):
  """One row a workload: the best median, every contestant's ratio to it, and the pairing."""
  head = ["workload", f"best, {unit}" if unit else "best", *names, "spread",
          f"{OURS} / best other"]
  rows = []
  for workload in workloads:
    row = ratios(workload, cost)
    best = min(medians(workload, cost).values(), default=0) * factor
    pairing = against_best_other(workload, cost)
    rows.append([workload["name"], cell(best, 3 if unit == "s" else 1 if unit else 0),
                 *(cell(row.get(name)) for name in names), f"{spread(workload, cost):.0%}",
                 "" if pairing is None else "{1:.2f} ({2:.2f}-{3:.2f}) {0}".format(*pairing)])
  return table(head, rows)


def summary(workloads, names):
  """Geometric means, and where ours is behind."""
  head = ["geometric mean of the ratios", *names]
  rows = []
  for cost, title, _, _ in COSTS:
    means = geometric_means(workloads, cost, names)
    if means:
      rows.append([title, *(cell(means[name], 3) for name in names)])
  lines = [table(head, rows)]
  for cost, title, _, _ in COSTS:
    pairings = [(w["name"], against_best_other(w, cost)) for w in workloads]
    behind = [f"{name} {pairing[1]:.2f}" for name, pairing in pairings
              if pairing is not None and pairing[1] > BEHIND]
    if cost in ("wall_s", "peak_kib") and any(pairing for _, pairing in pairings):
      lines.append(f"{title}: {OURS} is more than {BEHIND - 1:.0%} behind the best of the others in "
                   f"{len(behind)} of {len(pairings)} workloads"
                   + (": " + ", ".join(behind) if behind else "") + ".")
  return "\n\n".join(lines)


def scaling_table(workloads, names):
  """Of workloads that ran with several numbers of threads, all of them doing the same work in sum:
  how much faster each is than the one with the fewest threads."""
  families = {}
  for workload in workloads:
    family, _, threads = workload["name"].rpartition("/")
    if family:
      families.setdefault(family, []).append((int(threads), medians(workload, "wall_s")))
  rows = []
  for family, members in families.items():
    members.sort(key=lambda member: member[0])
    least, base = members[0]
    for threads, values in members[1:]:
      speeds = {name: base[name] / values[name] for name in base.keys() & values.keys()}
      rows.append([f"{family}, {threads} threads to {least}", *(cell(speeds.get(n)) for n in names)])
  return table(["speed", *names], rows) if rows else ""


def figures_of(workload):
  """What a workload reports itself, and for a probe what it cost: {figure: {contestant: [values]}}."""
  result = {}
  for name, runs in workload["runs"].items():
    for run in runs:
      found = dict(run.get("figures", {}))
      if workload["is_probe"]:
        found.update({"wall, ms": run["wall_s"] * 1e3, "peak RSS, MiB": run["peak_kib"] / 1024})
      for figure, value in found.items():
        result.setdefault(figure, {}).setdefault(name, []).append(value)
  return result


def range_cell(values):
  median = f"{statistics.median(values):.2f}"
  return median if len(values) == 1 else f"{median} ({min(values):.2f}-{max(values):.2f})"


def figures_table(workloads, names):
  rows = []
  for workload in workloads:
    for figure, values in figures_of(workload).items():
      cells = [range_cell(values[name]) if name in values else "failed" for name in names]
      rows.append([f"{workload['name']}: {figure}", *cells])
  return table(["median (least-most)", *names], rows) if rows else ""


def tables(result):
  """The whole report as markdown."""
  info = result["machine"]
  names = list(info["contestants"])
  compared = [w for w in result["workloads"] if not w["is_probe"]]
  parts = [
      f"{info['time']}, {info['processor']}, {info['processors']} processors, kernel "
      f"{info['kernel']}, {info['libc']}; {info['repetitions']} repetitions, scale {info['scale']}; "
      f"load at the start {info['load']:.1f}"
      + (" (NOT IDLE: distrust the times)" if info["load"] > 0.5 else ""),
  ]
  if compared:
    parts += ["## Summary", summary(compared, names)]
  for cost, title, unit, factor in COSTS if compared else []:
    parts += [f"## {title}: ratio to the best", cost_table(compared, cost, unit, factor, names)]
  scaling = scaling_table(compared, names)
  if scaling:
    parts += ["## Scaling: how much faster the same work is with more threads", scaling]
  probes = figures_table(result["workloads"], names)
  if probes:
    parts += ["## Probes, and what the programs report themselves", probes]
  if result["failures"]:
    parts += ["## Failed runs", "\n".join(f"- {failure}" for failure in result["failures"])]
  return "\n\n".join(parts) + "\n"


def points(workloads, cost, name):
  """gnuplot's data of one contestant: ratio and row; the first workload is on top."""
  lines = []
  for row, workload in enumerate(reversed(workloads)):
    value = ratios(workload, cost).get(name)
    if value is not None:
      lines.append(f"{min(value, 10):.4f} {row}")
  return "\n".join(lines)


def panel(title, workloads, cost, names):
  """gnuplot's commands for one half of the chart."""
  means = geometric_means(workloads, cost, names)
  labels = ", ".join(f"'{w['name']}' {row}" for row, w in enumerate(reversed(workloads)))
  blocks, plots = [], []
  for number, name in enumerate(names):
    data = points(workloads, cost, name)
    if not data:
      continue
    blocks.append(f"$p{number} << EOD\n{data}\nEOD")
    mean = f" ({means[name]:.2f})" if name in means else ""
    size, colour = (0.9, OUR_COLOUR) if name == OURS else (0.6, COLOURS[number % len(COLOURS)])
    plots.append(f"$p{number} using 1:2 with points pt 7 ps {size} lc rgb '{colour}' "
                 f"title '{name}{mean}'")
  return "\n".join([
      *blocks,
      f"set title '{title} (in brackets: geometric mean)'",
      f"set ytics ({labels}) nomirror",
      "plot " + ", \\\n     ".join(plots),
  ])


def chart(result, path):
  """An SVG: a row for each workload, a dot for each contestant; 1 is the best."""
  workloads = [w for w in result["workloads"] if not w["is_probe"] and any(w["runs"].values())]
  if not workloads:
    return
  if shutil.which("gnuplot") is None:
    print("no chart: gnuplot is not installed", file=sys.stderr)
    return
  # Ours last, in front of the others.
  names = sorted(result["machine"]["contestants"], key=lambda name: name == OURS)
  height = 140 + 17 * len(workloads)
  script = "\n".join([
      f"set terminal svg size 1100,{height} font 'sans,11' background 'white'",
      f"set output '{path}'",
      "set multiplot layout 1,2",
      f"set yrange [-1:{len(workloads)}]", "set logscale x", "set xrange [0.95:10.5]",
      "set xtics (1, 1.25, 1.5, 2, 3, 4, 5, 7, '10+' 10) nomirror",
      "set grid xtics ytics lt 1 lc rgb '#cccccc'", "set key outside bottom center horizontal",
      "set lmargin 18",
      panel("time, ratio to the best", workloads, "wall_s", names),
      panel("peak RSS, ratio to the best", workloads, "peak_kib", names),
      "unset multiplot", ""])
  subprocess.run(["gnuplot"], input=script, text=True, check=True, stdout=subprocess.DEVNULL)
