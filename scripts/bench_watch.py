"""Watching the memory of a program from outside, while it runs."""
import collections
import mmap
import os
import struct
import time

from bench_measure import BadRun

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
INTERVAL_S = 0.05
END_STAGE = 100  # Watched::kEnd: the program only clears up
HUGE_INTERVAL_S = 1.0  # the kernel walks all pages for this one

# What was seen at one moment: seconds since the start; bytes resident; the bytes that the program
# says are live, and the stage that it says it has come to.
Sample = collections.namedtuple("Sample", "seconds rss live stage")


class Page:
  """A file that a program of test/bench maps, and shows in it what is live and how far it has come:
  class Watched in test/bench/watched.h. With another program both stay 0."""

  def __init__(self, path):
    path.write_bytes(bytes(PAGE_BYTES))
    with open(path, "rb") as file:
      self.map = mmap.mmap(file.fileno(), PAGE_BYTES, access=mmap.ACCESS_READ)

  def read(self):
    return struct.unpack_from("@qQ", self.map)


def resident(pid):
  """Bytes resident; 0 once the process has ended."""
  try:
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
      return int(statm.read().split()[1]) * PAGE_BYTES
  except OSError:
    return 0


def field(path, name):
  """The bytes after a name in a file of /proc that counts in kB."""
  with open(path, encoding="ascii") as lines:
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def huge(pid):
  """Bytes in transparent huge pages."""
  try:
    return field(f"/proc/{pid}/smaps_rollup", "AnonHugePages")
  except (OSError, StopIteration):
    return 0


def watch(process, page, limit_s):
  """Looks at a process until it ends. Gives the samples, and the most bytes in huge pages."""
  begin = time.monotonic()
  samples, most_huge, look_for_huge = [], 0, 0
  while process.poll() is None:
    seconds = time.monotonic() - begin
    if seconds > limit_s:
      raise BadRun(f"no end after {limit_s} s")
    live, stage = page.read()
    rss = resident(process.pid)
    if rss > 0:
      samples.append(Sample(round(seconds, 3), rss, live, stage))
    if seconds > look_for_huge:
      most_huge = max(most_huge, huge(process.pid))
      look_for_huge = seconds + HUGE_INTERVAL_S
    time.sleep(INTERVAL_S)
  return samples, most_huge
