"""The mallocs that a benchmark compares, and the environment in which a program runs on one."""
import contextlib
import dataclasses
import glob
import os
import re
import subprocess

OURS = "minitc"
PLAIN = "glibc"
# What Debian packages: name, file. The packages' names are in the Makefile.
PACKAGED = {
    "jemalloc": "libjemalloc.so.2",
    "gperftools": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2",
}
LIBRARY_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib", "/usr/local/lib")
# Variables that change what a malloc or the loader does.
DROPPED = ("LD_", "MALLOC_", "GLIBC_TUNABLES", "JE_MALLOC_CONF", "TCMALLOC_", "MIMALLOC_", "MINITC_")


class BadInput(Exception):
  """Something that the caller named does not exist or does not do."""


@dataclasses.dataclass(frozen=True)
class Contestant:
  """A malloc: a name, and the library to preload, or None for glibc's own."""
  name: str
  path: str | None


def clean_environment(**more):
  """The caller's environment, less what would make one malloc another than the one measured."""
  env = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
  env.update(LC_ALL="C", **more)
  return env


def environment(contestant, **more):
  env = clean_environment(**more)
  if contestant.path is not None:
    env["LD_PRELOAD"] = contestant.path
  return env


def check_library(name, path):
  """Refuses a file that would leave programs on glibc's malloc, under another's name."""
  if not os.path.isfile(path):
    raise BadInput(f"{name}: {path} is missing")
  if re.search(r"[\s:]", path):
    raise BadInput(f"{name}: {path}: LD_PRELOAD takes no path with a blank or a colon in it")
  symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True,
                           check=False)
  if symbols.returncode != 0 or not re.search(r" [TWi] malloc(@|$)", symbols.stdout, re.MULTILINE):
    raise BadInput(f"{name}: {path} does not define malloc {symbols.stderr.strip()}".rstrip())
  loaded = subprocess.run(["/bin/true"], env=clean_environment(LD_PRELOAD=path),
                          capture_output=True, text=True, check=False)
  if loaded.returncode != 0 or "cannot be preloaded" in loaded.stderr:
    raise BadInput(f"{name}: {path} cannot be preloaded: {loaded.stderr.strip()}")


def libc_path():
  """The path of the libc that programs here run on."""
  with open("/proc/self/maps", encoding="utf-8") as maps:
    found = re.search(r"\s(/\S*/libc\.so\.6)$", maps.read(), re.MULTILINE)
  if found is None:
    raise BadInput("glibc: no libc.so.6 is mapped into this python3")
  return found.group(1)


def find_packaged(name):
  for folder in LIBRARY_FOLDERS:
    for path in sorted(glob.glob(f"{folder}/{PACKAGED[name]}")):
      return path
  raise BadInput(f"{name}: {PACKAGED[name]} is not installed")


def gather(lib, peers="", only=""):
  """All contestants: glibc, Debian's three, those of peers (name=path,…), and ours. only, a list of
  names with commas between them, selects some."""
  paths = {}
  for entry in filter(None, peers.split(",")):
    name, _, path = entry.partition("=")
    if not re.fullmatch(r"[\w.+-]+", name) or not path:
      raise BadInput(f"PEERS: {entry!r}: write name=path, with commas between several")
    if name in (PLAIN, OURS, *PACKAGED, *paths):
      raise BadInput(f"PEERS: {name}: there is a contestant of that name already")
    paths[name] = os.path.abspath(path)
  names = [PLAIN, *PACKAGED, *paths, OURS]
  chosen = list(filter(None, only.split(","))) or names
  for name in chosen:
    if name not in names:
      raise BadInput(f"{name}: no such contestant; there are {', '.join(names)}")
  result = []
  for name in names:
    if name not in chosen:
      continue
    path = None
    if name != PLAIN:
      path = (os.path.abspath(lib) if name == OURS
              else find_packaged(name) if name in PACKAGED else paths[name])
      check_library(name, path)
    result.append(Contestant(name, path))
  return result


def installed():
  """The names of those of Debian's three that are there."""
  found = []
  for name in PACKAGED:
    with contextlib.suppress(BadInput):
      find_packaged(name)
      found.append(name)
  return found


def paths(contestants):
  """{name: the file}, for a report."""
  return {c.name: os.path.realpath(c.path) if c.path else None for c in contestants}


def add_arguments(parser):
  """The options that every benchmark script has."""
  parser.add_argument("--lib", required=True, help="our library")
  parser.add_argument("--programs", required=True, metavar="DIR", help="what test/bench became")
  parser.add_argument("--peers", default="", metavar="NAME=PATH,…", help="further contestants")
  parser.add_argument("--contestants", default="", metavar="NAME,…", help="only these")
  parser.add_argument("--only", default="", metavar="PATTERN",
                      help="only workloads whose name matches this regular expression")
  parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")


def select(workloads, pattern):
  """The workloads whose name matches."""
  try:
    chosen = [workload for workload in workloads if re.search(pattern, workload.name)]
  except re.error as problem:
    raise BadInput(f"BENCH: {pattern!r} is not a regular expression: {problem}") from problem
  if not chosen:
    names = ", ".join(workload.name for workload in workloads)
    raise BadInput(f"BENCH: no workload matches {pattern!r}; there are {names}")
  return chosen
