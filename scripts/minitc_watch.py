"""What a process wrote to MINITC_STATS_FILE: the command minitc's stats and top."""
import contextlib
import json
import os
import pathlib
import re
import time

import rich.box
import rich.console
import rich.live
import rich.table

from bench_contestants import BadInput

FORMAT = 1
TAIL_BYTES = 1 << 20  # some dozens of lines
DATA_BYTES = 8 << 20  # more than the library's data
REFRESH_SECONDS = 1
MOST_CLASSES = 12
OTHER_ROWS = 18  # of what top shows
TIERS = [("live", "with the program"), ("thread_cached", "free, in thread caches"),
         ("central", "free, in spans of small objects"),
         ("page_heap_free", "free pages, committed"),
         ("returned", "free pages without memory behind them")]
# Prometheus: field, type, unit of the name, help.
METRICS = [
    *((name, "gauge", "_bytes", f"Bytes {what}.") for name, what in TIERS),
    ("mapped", "gauge", "_bytes", "The sum of the above."),
    ("metadata", "gauge", "_bytes", "Address space of the allocator's own data."),
    ("peak", "gauge", "_bytes", "Most that was live, thread-cached or central."),
    ("large_bytes", "gauge", "", "The part of live that is large objects."),
    ("large_count", "gauge", "", "Live large objects."),
    ("threads", "gauge", "", "Threads that have a cache."),
    ("pools", "gauge", "", "Region pools."),
    ("pool_bytes", "gauge", "", "The part of live that pools held at their fullest of late."),
    ("large_acquired", "counter", "_total", "Large objects allocated."),
    ("large_acquired_bytes", "counter", "_total", "Bytes of large objects allocated."),
    ("free_runs_returned", "counter", "_total", "Times that free pages were given back."),
    ("time_ms", "gauge", "", "When the process wrote this, in milliseconds since 1970."),
]
CLASS_METRICS = [("spans", "gauge", "", "Spans of the size class."),
                 ("live", "gauge", "_objects", "Objects with the program."),
                 ("thread_cached", "gauge", "_objects", "Objects in thread caches."),
                 ("central", "gauge", "_objects", "Objects in spans and in the store."),
                 ("pinned", "gauge", "_objects", "Free objects in spans that others keep."),
                 ("pinning", "gauge", "_objects", "Those others, in use or cached."),
                 ("refilled", "counter", "_total", "Objects that left the central tier.")]
# What bounds a tier: the option, and what its 0 stands for.
LIMITS = {"thread_cached": ("MINITC_THREAD_CACHE_TOTAL", None),
          "page_heap_free": ("MINITC_FREE_BOUND", "32 MiB or live/8"),
          "live": ("MINITC_HARD_LIMIT", "")}


def file_of(word):
  """The file, and the process or None: what the user named is one or the other."""
  if not word.isdecimal() or os.path.exists(word):
    return word, None
  try:
    setting = (setting_in(pathlib.Path(f"/proc/{word}/environ").read_bytes().split(b"\0")) or
               setting_in(kept_by(word)))
  except FileNotFoundError:
    raise BadInput(f"{word}: no such process or file") from None
  except PermissionError:
    raise BadInput(f"{word}: no right to look into that process") from None
  if setting is None:
    raise BadInput(f"{word}: started without MINITC_STATS_FILE")
  return os.fsdecode(setting).replace("%p", word), int(word)


def setting_in(entries):
  """The value of MINITC_STATS_FILE among NAME=VALUE, or None."""
  name = b"MINITC_STATS_FILE="
  return next((entry[len(name):] for entry in entries if entry.startswith(name)), None)


def kept_by(pid):
  """What the library keeps of its environment in its own data: some programs overwrite theirs. To be
  asked last: where Yama restricts ptrace, as on Ubuntu, only root may read another's memory."""
  found, end = [], 0
  with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
    for line in maps:
      place, access, _, _, _, *name = line.rstrip("\n").split(None, 5)
      start, its_end = (int(number, 16) for number in place.split("-"))
      # Its data that are zero in the file are a mapping without a name, behind the others.
      if "libminitc" not in "".join(name) and (name or start != end):
        continue
      end = its_end
      if access.startswith("rw"):
        with open(f"/proc/{pid}/mem", "rb") as memory:
          memory.seek(start)
          data = memory.read(min(end - start, DATA_BYTES))
        found += re.findall(rb"MINITC_STATS_FILE=/[^\0]*", data)
  return found


def source_of(args):
  """The file and the process that the command line names, the latter perhaps None."""
  path, pid = file_of(args.source)
  if args.pid is not None and pid is not None:
    raise BadInput(f"{args.source}: that is a process; name its file, or leave --pid out")
  return path, args.pid if pid is None else pid


def lines_of(path, whole=False):
  """The last lines of the file, or all."""
  try:
    with open(path, "rb") as file:
      start = 0 if whole else max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
      file.seek(start)
      text = file.read().split(b"\n")[1 if start else 0:-1]
  except OSError as problem:
    raise BadInput(f"{path}: {problem.strerror}") from problem
  lines, other = [], None
  for line in filter(None, text):
    try:
      entry = json.loads(line)
      form = entry["format"]
    except (ValueError, KeyError, TypeError):
      other = other or line  # one that was cut, as on a full disk, is no reason to read no other
      continue
    if form != FORMAT:
      raise BadInput(f"{path}: format {form}, this is for format {FORMAT}")
    lines.append(entry)
  if not lines and other:
    raise BadInput(f"{path}: not a file of MINITC_STATS_FILE: {other[:40]!r}")
  if not lines:
    raise BadInput(f"{path}: nothing was written yet")
  return lines


def counts(line):
  """What only grows as long as a process lives."""
  return (line["monotonic_ms"], line["large_acquired"], line["free_runs_returned"],
          sum(row["refilled"] for row in line["classes"]))


def lives(lines):
  """The lines of each process. Several may have had one number, as 1 is that of each start of a
  container: where counts fall, another begins."""
  newest, found = {}, []
  for line in lines:
    own = newest.get(line["pid"])
    if own is None or any(now < then for now, then in zip(counts(line), counts(own[-1]))):
      own = newest[line["pid"]] = []
      found.append(own)
    own.append(line)
  return found


def latest(path, pid):
  """The last line of the process, or of the one that wrote last, and the line before it or None."""
  lines = lines_of(path)
  pid = pid or lines[-1]["pid"]
  own = [life for life in lives(lines) if life[0]["pid"] == pid]
  if not own:
    raise BadInput(f"{path}: process {pid} has written nothing of late")
  return own[-1][-1], own[-1][-2] if len(own[-1]) > 1 else None


def prometheus(lines):
  """The exposition format of Prometheus, with a label for the process."""
  text = []
  for name, kind, unit, description in METRICS:
    text += [f"# HELP minitc_{name}{unit} {description}", f"# TYPE minitc_{name}{unit} {kind}"]
    text += [f'minitc_{name}{unit}{{pid="{line["pid"]}"}} {line[name]}' for line in lines]
  text += ["# HELP minitc_option An option in effect, if it is a number.",
           "# TYPE minitc_option gauge"]
  text += [f'minitc_option{{pid="{line["pid"]}",name="{name}"}} {value}'
           for line in lines for name, value in line["options"].items() if isinstance(value, int)]
  for name, kind, unit, description in CLASS_METRICS:
    text += [f"# HELP minitc_class_{name}{unit} {description}",
             f"# TYPE minitc_class_{name}{unit} {kind}"]
    text += [f'minitc_class_{name}{unit}{{pid="{line["pid"]}",bytes="{row["bytes"]}"}} {row[name]}'
             for line in lines for row in line["classes"]]
  return "\n".join(text) + "\n"


def size(count):
  for unit in ("B", "KiB", "MiB", "GiB"):
    if count < 1024 or unit == "GiB":
      return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
    count /= 1024


def rates(line, before):
  """Per second, since the line before: {class: objects} that left the central tier, and large bytes."""
  if before is None or line["monotonic_ms"] <= before["monotonic_ms"]:
    return {}, None
  seconds = (line["monotonic_ms"] - before["monotonic_ms"]) / 1000
  old = {row["bytes"]: row["refilled"] for row in before["classes"]}
  objects = {row["bytes"]: (row["refilled"] - old.get(row["bytes"], 0)) / seconds
             for row in line["classes"]}
  return objects, (line["large_acquired_bytes"] - before["large_acquired_bytes"]) / seconds


def limit_of(tier, options):
  option, default = LIMITS.get(tier, (None, None))
  if option is None or option not in options:
    return ""
  limit = size(options[option]) if options[option] or default is None else default
  return f" (limit: {limit})" if limit else ""


def by_weight(line):
  """The size classes, those that hold most first."""
  return sorted(line["classes"], reverse=True,
                key=lambda row: row["bytes"] * (row["live"] + row["thread_cached"] + row["central"]))


def view(line, before, most=MOST_CLASSES):
  """All that is shown of a process at one time, with so many classes."""
  objects, large = rates(line, before)
  age = time.time() - line["time_ms"] / 1000
  state = "has ended" if line["event"] == "exit" else f"written {max(age, 0):.0f} s ago"
  totals = rich.table.Table(box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left",
                            title=f"process {line['pid']}, {state}; threads with a cache: "
                                  f"{line['threads']}")
  totals.add_column(no_wrap=True)
  totals.add_column(justify="right", no_wrap=True)
  totals.add_column(justify="right", no_wrap=True)
  totals.add_column()
  for name, what in TIERS:
    share = line[name] / line["mapped"] if line["mapped"] else 0
    totals.add_row(name.replace("_", "-"), size(line[name]), f"{share:.0%}",
                   what + limit_of(name, line["options"]))
  totals.add_row("mapped", size(line["mapped"]), "", "the sum of the above")
  totals.add_row("metadata", size(line["metadata"]), "", "address space of the allocator's own data")
  totals.add_row("peak", size(line["peak"]), "", "most that was live, thread-cached or central")
  if line["pools"]:
    totals.add_row("pools", size(line["pool_bytes"]), "", f"of live, in {line['pools']} region pools")
  if large is not None:
    small = sum(count * size_class for size_class, count in objects.items())
    totals.add_row("refills", f"{size(small)}/s", "", "small objects that left the central tier")
    totals.add_row("large", f"{size(large)}/s", "", "large objects allocated")

  classes = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
  for head in ("class", "live", "live bytes", "cached", "central", "pinned", "by objects",
               "refilled/s"):
    classes.add_column(head, justify="right", no_wrap=True)
  for row in by_weight(line)[:most]:
    rate = objects.get(row["bytes"])
    classes.add_row(str(row["bytes"]), str(row["live"]), size(row["live"] * row["bytes"]),
                    str(row["thread_cached"]), str(row["central"]),
                    size(row["pinned"] * row["bytes"]), str(row["pinning"]), "" if rate is None else f"{rate:.0f}")
  classes.add_row("large", str(line["large_count"]), size(line["large_bytes"]), "", "", "", "", "")
  return rich.console.Group(totals, "", classes)


def stats(args):
  path, pid = source_of(args)
  if args.prometheus:
    newest = {line["pid"]: line for line in lines_of(path) if pid in (None, line["pid"])}
    if not newest:
      raise BadInput(f"{path}: process {pid} has written nothing of late")
    print(prometheus(list(newest.values())), end="")
  else:
    rich.console.Console(highlight=False).print(view(*latest(path, pid)))
  return 0


def top(args):
  """Until the process writes its last line or is gone, or Ctrl-C."""
  console = rich.console.Console(highlight=False)
  if not console.is_terminal:
    raise BadInput("top needs a terminal; minitc stats prints the same once")
  path, pid = source_of(args)
  line, before = latest(path, pid)
  # It may be in a container, with another number out here.
  process = pathlib.Path(f"/proc/{line['pid']}")
  is_here = process.exists()
  most = max(1, min(MOST_CLASSES, console.height - OTHER_ROWS))
  with rich.live.Live(view(line, before, most), console=console, auto_refresh=False) as live:
    while line["event"] != "exit" and process.exists() == is_here:
      time.sleep(REFRESH_SECONDS)
      with contextlib.suppress(BadInput):  # the file was moved away or emptied: its next line comes
        line, before = latest(path, line["pid"])
      live.update(view(line, before, most), refresh=True)
  return 0
