#!/usr/bin/python3
"""Checks how much stack the library needs: each function, and each exported one with all it calls.

Usage: check_stack.py EXPORTS_MAP CALL_GRAPH... [--long]

A call graph is what gcc's -fcallgraph-info=su writes beside an object file. A program may run its
threads and signal handlers on stacks of PTHREAD_STACK_MIN and MINSIGSTKSZ bytes, so malloc and its
kin have little to spend. No function may have a frame of unknown size, and none may call itself
again, on any path. What libc's functions need is not known here; the tests of small stacks run them.
--long shows the deepest chain of each exported function.
"""

import argparse
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# In bytes. Reports hold the figures of all classes, and are called by programs that ask for them.
FRAME_LIMIT = 1024
CHAIN_LIMIT = 3072
REPORT_FRAME_LIMIT = 6144
REPORT_CHAIN_LIMIT = 8192
REPORTS = {"malloc_info", "malloc_stats", "mallinfo", "mallinfo2", "minitc_stats", "minitc_stats_json",
           "minitc_for_each_span",
           "minitc::print_report()", "minitc::{anonymous}::report_at_end()"}

# What is called through a pointer: the table of the OS, what reads the files of a control group, and
# what takes the lines of reports and complaints. (The operators of a C++ runtime are so, too.)
OS_TABLE = re.findall(r"^ +\.\w+ = (\w+),$", (ROOT / "core" / "os.cc").read_text("utf-8"), re.M)
INDIRECT = re.compile(r"minitc::(\{anonymous\}::)?"
                      rf"({'|'.join(OS_TABLE)}|read_file|put_line|say)\("
                      r"|<lambda\(const (minitc::)?Text&, void\*\)>")

# Functions that may call themselves, with the reason why that has an end.
RECURSIVE = {
    "minitc::RunIndex::visit_tree": "the library calls it only where no run is long enough for the "
                                    "tree; in tests and debug builds the tree is shallow",
}

# Called from outside though not exported: by the loader, by libc at a thread's end and at fork.
ENTRIES = re.compile(r"::(start_at_load|report_at_end|before_fork|after_fork_in_\w+|_FUN)\(")

NODE = re.compile(r'^node: \{ title: "([^"]+)" label: "([^"]*)"', re.M)
EDGE = re.compile(r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', re.M)
SIZE = re.compile(r"(\d+) bytes \((\w+)(?:,(\w+))?\)")


class Graph:
  """The functions of all files with their frames, and who calls whom."""

  def __init__(self):
    self.names = {}    # title -> signature
    self.frames = {}   # title -> bytes
    self.calls = {}    # title -> set of titles
    self.errors = []

  def read(self, text):
    for title, label in NODE.findall(text):
      signature = label.split("\\n")[0]
      size = SIZE.search(label)
      if size is None:
        continue  # declared here, defined elsewhere
      self.names[title] = signature
      self.frames[title] = int(size[1])
      if size[2] == "dynamic" and size[3] != "bounded":
        self.errors.append(f"{signature}: a frame of unknown size")
    for source, target in EDGE.findall(text):
      self.calls.setdefault(source, set()).add(target)

  def called(self, title):
    targets = self.calls.get(title, set())
    if "__indirect_call" in targets:
      targets = targets | {t for t, name in self.names.items() if INDIRECT.search(name)}
    if any(self.names.get(title, "").find(name + "(") >= 0 for name in RECURSIVE):
      targets = targets - {title}
    return targets & self.frames.keys()

  @functools.cache
  def deepest(self, title):
    """The deepest chain of calls from a function: (bytes, titles)."""
    below = [self.deepest(target) for target in self.called(title)]
    bytes_below, chain = max(below, default=(0, ()))
    return self.frames[title] + 8 + bytes_below, (title, *chain)  # 8: the return address

  def cycles(self):
    """Chains that lead back to where they began."""
    state = {}
    found = []

    def visit(title, path):
      state[title] = "open"
      for target in sorted(self.called(title)):
        if state.get(target) == "open":
          found.append(path[path.index(target):] if target in path else [title])
        elif target not in state:
          visit(target, [*path, target])
      state[title] = "done"

    for title in sorted(self.frames):
      if title not in state:
        visit(title, [title])
    return found


def short(signature):
  """A signature without its result and arguments."""
  return re.sub(r"^(?:[\w:<>*& ]+ )?\**([\w:{}~ ]+)\(.*$", r"\1", signature)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("exports_map")
  parser.add_argument("call_graphs", nargs="+")
  parser.add_argument("--long", action="store_true")
  args = parser.parse_args()

  graph = Graph()
  for path in args.call_graphs:
    with open(path, encoding="utf-8") as stream:
      graph.read(stream.read())
  with open(args.exports_map, encoding="utf-8") as stream:
    exported = set(re.findall(r"^    (\w+);", stream.read(), re.M))
  errors = graph.errors
  for cycle in graph.cycles():
    errors.append("calls itself: " + " > ".join(short(graph.names[t]) for t in cycle))
  if errors:
    print("\n".join(errors))
    return 1

  deepest = [0, 0]
  frames = [0, 0]
  for title, bytes_ in graph.frames.items():
    signature = graph.names[title]
    is_report = title in REPORTS or any(signature.endswith(name) for name in REPORTS)
    frames[is_report] = max(frames[is_report], bytes_)
    if bytes_ > (REPORT_FRAME_LIMIT if is_report else FRAME_LIMIT):
      errors.append(f"{signature}: a frame of {bytes_} bytes")
    if title not in exported and not ENTRIES.search(signature):
      continue
    total, chain = graph.deepest(title)
    deepest[is_report] = max(deepest[is_report], total)
    text = f"{total:6}  " + " > ".join(
        f"{short(graph.names[t])} {graph.frames[t]}" for t in chain)
    if total > (REPORT_CHAIN_LIMIT if is_report else CHAIN_LIMIT):
      errors.append(f"too deep:{text}")
    elif args.long:
      print(text)
  seen = len(exported & graph.frames.keys())
  if seen < 20:
    errors.append(f"only {seen} exported functions are in the call graphs")
  print("\n".join(errors + [
      f"{len(graph.frames)} functions; frames up to {frames[0]} bytes, chains up to {deepest[0]}; "
      f"of reports {frames[1]} and {deepest[1]}"]))
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
