"""A page about a process, from the lines that it wrote to MINITC_STATS_FILE: the command minitc's
report."""
import datetime
import html
import re
import shutil
import string
import subprocess

import minitc_watch
from bench_contestants import BadInput
from minitc_watch import TIERS, size

# What has memory behind it, from the bottom of the chart up.
STACK = [name for name, _ in TIERS if name != "returned"]
RATES = [("refilled", "small objects that left the central tier"),
         ("large", "large objects allocated")]
MOST_POINTS = 400  # of a chart: more would not be seen
CHARTS = {"wide": (1000, 330), "narrow": (360, 300)}  # each is drawn for both
COLOURS = {"text": "#010001", "grid": "#010002",
           **{name: f"#01{number:02x}03" for number, name in enumerate([*STACK, "refilled", "large"])}}
CLASS_COLUMNS = ["size class", "spans", "live objects", "live bytes", "thread-cached bytes",
                 "central bytes", "free", "pinned bytes", "by objects", "refilled", "refilled/s"]
FIGURES = [*TIERS, ("mapped", "the sum of the above"),
           ("metadata", "address space of the allocator's own data"),
           ("peak", "most that was live, thread-cached or central at a time"),
           ("large_bytes", "the part of live that is objects of more than 128 KiB"),
           ("pool_bytes", "the part of live that region pools held at their fullest of late")]

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>libminitc: process $pid</title>
<style>
:root { --text: #1c2126; --soft: #5a6572; --page: #ffffff; --card: #f5f7f9; --grid: #c9d1d9;
  --live: #0072b2; --thread_cached: #e69f00; --central: #009e73; --page_heap_free: #cc79a7;
  --refilled: #0072b2; --large: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --soft: #9aa5b1; --page: #14181c; --card: #1d2329; --grid: #3a434d;
    --live: #4aa8e0; --thread_cached: #f0b73a; --central: #2bb98f; --page_heap_free: #d994b9;
    --refilled: #4aa8e0; --large: #f08c4a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 20px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1, p, td.text, .options { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); }
svg { display: block; width: 100%; height: auto; }
.narrow { display: none; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; padding: 0;
  list-style: none; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { color: var(--text); vertical-align: baseline; }
th:first-child, td.text, th.text { text-align: left; }
td.text { color: var(--soft); }
.classes { font-size: .87rem; }
.classes th, .classes td { padding: .3rem .45rem; }
.classes th:first-child { text-align: right; }
@media (max-width: 800px) {
  body { padding: 14px; }
  .wide { display: none; }
  .narrow { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; margin: .6rem 0; padding: .5rem .7rem;
    background: var(--card); border-radius: 8px; }
  tbody th, td.text { grid-column: 1 / -1; text-align: left !important; border: 0; padding: 0; }
  tbody th::before { content: attr(data-label); margin-right: .4em; color: var(--soft);
    font-weight: 400; }
  td { display: flex; justify-content: space-between; gap: .5rem; padding: .1rem 0; border: 0;
    text-align: right; }
  td[data-label]::before { content: attr(data-label); color: var(--soft); text-align: left; }
}
@media (max-width: 480px) { tr { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<h1>Memory of process $pid</h1>
<p>$about</p>
<h2>Where memory was</h2>
$memory
<h2>Rates</h2>
$rates
<h2>Figures</h2>
<table class="figures">
<thead><tr><th>bytes</th><th>last</th><th>&thinsp;</th><th>most</th><th class="text">what it is</th></tr></thead>
<tbody>
$figures
</tbody></table>
<h2>Size classes</h2>
<p>When most memory was in use, $when s after the first line; those that hold most come first. <b>Free</b>
is the share of a class's objects that no one uses. <b>Pinned</b> bytes are free, but in spans that the
objects named beside keep from going back. <b>Refilled</b> objects left the central tier until the end; the
rate is that of the whole record.</p>
<table class="classes">
<thead><tr>$class_heads</tr></thead>
<tbody>
$classes
</tbody></table>
<h2>Options in effect</h2>
<table class="options">
<thead><tr><th>option</th><th class="text">value</th></tr></thead>
<tbody>
$options
</tbody></table>
</body>
</html>
""")


def record_of(path, pid):
  """The lines of the process, or of the one with the highest peak, and how many processes there are."""
  lives = minitc_watch.lives(minitc_watch.lines_of(path, whole=True))
  own = [life for life in lives if pid in (None, life[0]["pid"])]
  if not own:
    raise BadInput(f"{path}: process {pid} has written nothing")
  return max(own, key=lambda life: life[-1]["peak"]), len(lives)


def in_memory(line):
  return sum(line[name] for name in STACK)


def thinned(lines):
  """No more lines than a chart shows: of neighbours the one with the most memory."""
  step = -(-len(lines) // MOST_POINTS)
  return [max(lines[start:start + step], key=in_memory) for start in range(0, len(lines), step)]


def scale(most, units):
  """The largest unit that `most` fills: its name and how much it is."""
  return next(((name, amount) for name, amount in units if most >= amount), units[-1])


def seconds_of(lines):
  return [(line["monotonic_ms"] - lines[0]["monotonic_ms"]) / 1000 for line in lines]


def drawn(name, script, width, height):
  """What gnuplot draws, to stand in a page: colours are the page's, nothing has an id."""
  setup = (f"set terminal svg size {width},{height} font 'system-ui,14'\nset key off\n"
           f"set border 3 lc rgb '{COLOURS['text']}'\nset tics nomirror out scale 0.6\n"
           f"set xtics tc rgb '{COLOURS['text']}' autofreq\nset ytics tc rgb '{COLOURS['text']}'\n"
           f"set grid ytics back lt 1 lw 1 lc rgb '{COLOURS['grid']}'\nset yrange [0:*]\n"
           f"set offsets graph 0, 0, 0.05, 0\nset style fill solid 1.0 noborder\n")
  if shutil.which("gnuplot") is None:
    raise BadInput("gnuplot is missing: apt-get install gnuplot-nox")
  done = subprocess.run(["gnuplot"], input=setup + script, capture_output=True, text=True, check=True)
  svg = done.stdout[done.stdout.index("<svg"):]
  svg = re.sub(r"<title>.*?</title>|<desc>.*?</desc>|<defs>.*?</defs>|\s(id|xmlns:xlink)=(\"[^\"]*\"|'[^']*')"
               r"|<g [^>]*>\s*</g>", "", svg, flags=re.DOTALL)
  variables = {tuple(bytes.fromhex(colour[1:])): name for name, colour in COLOURS.items()}

  def themed(match):
    name = variables.get(tuple(map(int, match.groups())))
    return f"var(--{name})" if name else match[0]
  svg = re.sub(r"rgb\( *(\d+), *(\d+), *(\d+)\)", themed, svg)
  svg = svg.replace('color="black"', "").replace('fill="none"/>', 'fill="none" />')
  return svg.replace("<svg", f'<svg class="{name}" role="img"', 1)


def both_sizes(script):
  return "\n".join(drawn(name, script, *CHARTS[name]) for name in CHARTS)


def legend(rows):
  items = (f'<li><i style="background: var(--{name})"></i>{html.escape(text)}</li>' for name, text in rows)
  return f'<ul class="legend">{"".join(items)}</ul>'


def axis(seconds):
  unit, per = scale(max(seconds), [("h", 7200), ("min", 180), ("s", 0)])
  per = {"h": 3600, "min": 60, "s": 1}[unit]
  times = [second / per for second in seconds]
  return times, (f"set xrange [0:{times[-1]:.4f}]\n"
                 f"set xlabel '{unit} since the first line' tc rgb '{COLOURS['text']}'\n")


BYTE_UNITS = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)]


def memory_chart(lines):
  """Bytes with memory behind them over time, one tier on top of the other."""
  lines = thinned(lines)
  times, label = axis(seconds_of(lines))
  unit, amount = scale(max(map(in_memory, lines)), BYTE_UNITS)
  blocks, plots = [], []
  below = [0.0] * len(lines)
  for name in STACK:
    above = [low + line[name] / amount for low, line in zip(below, lines)]
    rows = "\n".join(f"{t:.4f} {low:.4f} {high:.4f}" for t, low, high in zip(times, below, above))
    blocks.append(f"${name} << EOD\n{rows}\nEOD\n")
    plots.append(f"${name} using 1:2:3 with filledcurves lc rgb '{COLOURS[name]}'")
    below = above
  script = (label + f"set ylabel '{unit}' tc rgb '{COLOURS['text']}'\n" + "".join(blocks) +
            "plot " + ", ".join(plots) + "\n")
  names = dict(TIERS)
  return both_sizes(script) + legend((name, f"{name.replace('_', '-')}: {names[name]}") for name in STACK)


def rates_between(before, after):
  """Bytes per second of small objects that left the central tier, and of large ones allocated."""
  objects, large = minitc_watch.rates(after, before)
  return {"refilled": sum(count * size_class for size_class, count in objects.items()),
          "large": large or 0}


def rate_chart(lines):
  lines = thinned(lines)
  rates = [rates_between(before, after) for before, after in zip(lines, lines[1:])]
  times, label = axis(seconds_of(lines))
  unit, amount = scale(max(max(rate.values()) for rate in rates), BYTE_UNITS)
  blocks, plots = [], []
  for name, _ in RATES:
    rows = "\n".join(f"{t:.4f} {rate[name] / amount:.4f}" for t, rate in zip(times[1:], rates))
    blocks.append(f"${name} << EOD\n{rows}\nEOD\n")
    plots.append(f"${name} using 1:2 with lines lw 2 lc rgb '{COLOURS[name]}'")
  script = (label + f"set ylabel '{unit}/s' tc rgb '{COLOURS['text']}'\n" + "".join(blocks) +
            "plot " + ", ".join(plots) + "\n")
  return both_sizes(script) + legend(RATES)


def number(value):
  return f"{value:,}"


def row(head, head_label, cells):
  """A row of a table; each cell is (label, text) or, if it is prose, (None, text)."""
  label = f' data-label="{html.escape(head_label)}"' if head_label else ""
  text = f'<tr><th scope="row"{label}>{html.escape(head)}</th>'
  for label, value in cells:
    text += (f'<td class="text">{html.escape(value)}</td>' if label is None else
             f'<td data-label="{html.escape(label)}">{html.escape(value)}</td>')
  return text + "</tr>"


def figure_rows(lines):
  last = lines[-1]
  rows = [row(name.replace("_", "-"), None,
              [("last", number(last[name])), ("", size(last[name])),
               ("most", number(max(line[name] for line in lines))), (None, what)])
          for name, what in FIGURES]
  return "\n".join(rows)


def class_rows(line, first, last):
  """The classes as they were in one line, and what happened from the first to the last."""
  objects = minitc_watch.rates(last, first)[0]
  refilled = {entry["bytes"]: entry["refilled"] for entry in last["classes"]}
  rows = []
  for entry in minitc_watch.by_weight(line):
    size_class = entry["bytes"]
    free = entry["thread_cached"] + entry["central"]
    held = entry["live"] + free
    cells = [number(entry["spans"]), number(entry["live"]), number(entry["live"] * size_class),
             number(entry["thread_cached"] * size_class), number(entry["central"] * size_class),
             f"{free / held:.0%}" if held else "–", number(entry["pinned"] * size_class),
             number(entry["pinning"]), number(refilled[size_class]),
             f"{objects[size_class]:,.0f}" if size_class in objects else "–"]
    rows.append(row(number(size_class), CLASS_COLUMNS[0], zip(CLASS_COLUMNS[1:], cells)))
  return "\n".join(rows)


def page(lines, processes):
  first, last = lines[0], lines[-1]
  begin = datetime.datetime.fromtimestamp(first["time_ms"] / 1000).astimezone()
  seconds = (last["monotonic_ms"] - first["monotonic_ms"]) / 1000
  about = (f"From {begin:%Y-%m-%d %H:%M:%S %Z} on, {datetime.timedelta(seconds=round(seconds))} "
           f"(h:m:s) in {len(lines)} lines; the last "
           f"{'was written at its exit' if last['event'] == 'exit' else 'was not at its exit'}. "
           f"Threads that had a cache then: {last['threads']}."
           + (f" The file has lines of {processes} processes; of these it had the highest peak, or "
              "was named." if processes > 1 else ""))
  fullest = max(lines, key=in_memory)
  too_short = "<p>There are too few lines for a chart.</p>"
  has_charts = seconds > 0
  return PAGE.substitute(
      pid=last["pid"], about=html.escape(about),
      memory=memory_chart(lines) if has_charts else too_short,
      rates=rate_chart(lines) if has_charts else too_short, figures=figure_rows(lines),
      class_heads="".join(f"<th>{html.escape(head)}</th>" for head in CLASS_COLUMNS),
      when=f"{(fullest['monotonic_ms'] - first['monotonic_ms']) / 1000:.1f}",
      classes=class_rows(fullest, first, last),
      options="\n".join(row(name, None, [(None, str(value))])
                        for name, value in last["options"].items()))


def report(args):
  text = page(*record_of(*minitc_watch.source_of(args)))
  with open(args.output, "w", encoding="utf-8") as file:
    file.write(text)
  return 0
