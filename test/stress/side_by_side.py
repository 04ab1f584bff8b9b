"""Runs a program on the system's malloc and on libminitc, and compares what it did."""
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GREETING = re.compile(r"libminitc: [0-9]+\.[0-9]+\.[0-9]+ .*MINITC_VERBOSE=1")  # one per process
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def tool(name, package):
  """The path of a program. A missing one is a failure: a test left out would look like a pass."""
  path = shutil.which(name, path=SEARCH_PATH)
  if path is None:
    pytest.fail(f"{name} is not installed: apt-get install {package}")
  return path


def environment(home, lib=None, **more):
  """The same few variables everywhere, so that a result can't depend on who runs the tests. With
  lib, the program is preloaded and says so in one line on stderr."""
  env = {"PATH": SEARCH_PATH, "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C", "TZ": "UTC"}
  if lib is not None:
    env.update(LD_PRELOAD=lib, MINITC_VERBOSE="1")
  env.update(more)
  return env


@dataclasses.dataclass
class Outcome:
  """What a program left behind. notes are the library's own lines, taken out of stderr."""
  folder: pathlib.Path
  status: int
  out: bytes
  err: bytes
  notes: list


def start(argv, env, folder, stdin=None):
  """Starts a program in folder, which becomes its working directory. stdin is a file's path."""
  folder.mkdir(exist_ok=True)
  with open(stdin or os.devnull, "rb") as source:
    # A session of its own: what hangs is killed together with its children.
    return subprocess.Popen([str(word) for word in argv], env=env, cwd=folder, stdin=source,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def finish(process, folder, timeout):
  """Waits for a program that start() began."""
  try:
    out, err = process.communicate(timeout=timeout)
  except BaseException as problem:
    os.killpg(process.pid, signal.SIGKILL)
    out, err = process.communicate()
    if isinstance(problem, subprocess.TimeoutExpired):
      pytest.fail(f"{process.args} hangs: no end after {timeout} s\nstderr: {tail(err)}")
    raise
  lines = err.splitlines(keepends=True)
  notes = [line.decode(errors="replace") for line in lines if line.startswith(b"libminitc")]
  rest = b"".join(line for line in lines if not line.startswith(b"libminitc"))
  return Outcome(folder, process.returncode, out, rest, notes)


def tail(data, length=2000):
  return data[-length:].decode(errors="replace")


def first_difference(left, right):
  """Where two byte strings part, for a message that fits on a screen."""
  at = next((i for i, (a, b) in enumerate(zip(left, right)) if a != b),
            min(len(left), len(right)))
  return (f"{len(left)} and {len(right)} bytes, first difference at {at}: "
          f"{left[max(0, at - 40):at + 40]!r} and {right[max(0, at - 40):at + 40]!r}")


def require_same(what, plain, preloaded):
  """Fails unless both byte strings are equal and there is something to compare."""
  assert plain, f"{what}: empty, so comparing it would prove nothing"
  if plain != preloaded:
    pytest.fail(f"{what} differs without and with libminitc: {first_difference(plain, preloaded)}")


def run_both(tmp_path, lib, argv, stdin=None, timeout=120, together=True, processes=1, **more):
  """Runs argv in tmp_path/plain and, with the library, in tmp_path/preloaded. Both must succeed
  and print the same; the library must have greeted from at least that many processes. Returns both
  outcomes. together=False is for programs that keep several cores busy by themselves, or that
  would get into each other's way."""
  folders = [tmp_path / "plain", tmp_path / "preloaded"]
  envs = [environment(tmp_path, **more), environment(tmp_path, lib, **more)]
  if together:
    running = [start(argv, env, folder, stdin) for env, folder in zip(envs, folders)]
    outcomes = [finish(process, folder, timeout) for process, folder in zip(running, folders)]
  else:
    outcomes = [finish(start(argv, env, folder, stdin), folder, timeout)
                for env, folder in zip(envs, folders)]
  plain, preloaded = outcomes
  assert plain.status == 0, (
      f"{argv} fails even without libminitc: status {plain.status}\n{tail(plain.err)}")
  complaints = [line for line in preloaded.notes if not GREETING.match(line)]
  assert preloaded.status == 0, (
      f"{argv} on libminitc: status {preloaded.status}\n{tail(preloaded.err)}\n{complaints}")
  assert not complaints, f"{argv}: the library says {complaints}"
  assert len(preloaded.notes) >= processes, (
      f"{argv}: the library was loaded in {len(preloaded.notes)} processes of {processes}")
  if plain.out != preloaded.out:
    require_same(f"the output of {argv}", plain.out, preloaded.out)
  assert plain.err == preloaded.err, (
      f"stderr of {argv} differs: {first_difference(plain.err, preloaded.err)}")
  return plain, preloaded


def require_same_files(plain, preloaded, name):
  """Compares the file that both runs wrote under this name."""
  require_same(name, (plain.folder / name).read_bytes(), (preloaded.folder / name).read_bytes())
