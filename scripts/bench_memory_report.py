"""Tables and charts of what bench_memory.py measured."""
import shutil
import statistics
import subprocess
import sys

import bench_report
from bench_contestants import OURS

MIB = 1 << 20
NEAR = 1.03  # as good as the best


def median_figures(workload):
  """{figure: {contestant: median}}"""
  return {figure: {name: statistics.median(values) for name, values in row.items()}
          for figure, row in bench_report.figures_of(workload).items()}


def against_best_other(row):
  """Ours divided by the best of the others, with its name."""
  others = {name: value for name, value in row.items() if name != OURS}
  if OURS not in row or not others:
    return ""
  best = min(others, key=others.get)
  if min(row[OURS], others[best]) <= 0:
    return best
  return f"{row[OURS] / others[best]:.2f} {best}"


def cell(values):
  """The median of a figure, and how far it goes if there is anything to say of that."""
  median = statistics.median(values)
  digits = 0 if abs(median) >= 1000 else 1 if abs(median) >= 10 else 2
  text = f"{median:.{digits}f}"
  least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
  return text if least == most else f"{text} ({least}-{most})"


def figures_table(workloads, names):
  rows = []
  for workload in workloads:
    medians = median_figures(workload)
    for figure, row in bench_report.figures_of(workload).items():
      if not any(map(any, row.values())):
        continue
      rows.append([f"{workload['name']}: {figure}",
                   *(cell(row[name]) if name in row else "" for name in names),
                   against_best_other(medians[figure])])
  return bench_report.table(["median (least-most)", *names, f"{OURS} / best other"], rows)


def tables(result):
  """The whole report as markdown."""
  info = result["machine"]
  names = list(info["contestants"])
  parts = [
      f"{info['time']}, {info['processor']}, {info['processors']} processors, kernel "
      f"{info['kernel']}, {info['libc']}; {info['repetitions']} repetitions, scale "
      f"{info['scale']}, pace {info['pace']}{', quick' if info['is_quick'] else ''}",
      figures_table(result["workloads"], names)]
  if result["failures"]:
    parts += ["## Failed runs", "\n".join(f"- {failure}" for failure in result["failures"])]
  return "\n\n".join(parts) + "\n"


def charts(result, folder):
  pass
