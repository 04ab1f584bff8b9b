"""Fixtures for every folder of tests that run whole programs, with and without libminitc.so."""
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess

import pytest

import platforms

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEFAULT_TIMEOUT_S = 180  # a few take 10 s, and on a busy machine five times as long
EMULATED_SLOWDOWN = 5  # at the most, of what forks or makes threads
BUILD = pathlib.Path(os.environ.get("TEST_BUILD", ROOT / "build")).resolve() / "test"

# For another platform than this machine's: its name, and the emulator with its options, if any.
PLATFORM = os.environ.get("TEST_PLATFORM")
RUNNER = shlex.split(os.environ.get("TEST_RUNNER", ""))

# A crime ends in SIGABRT; a core file of each would only fill the disk.
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def base_environment():
  """The caller's environment without anything that changes what an allocator or a loader does."""
  dropped = ("MINITC_", "MALLOC_", "LD_", "GLIBC_TUNABLES")
  env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
  env["LC_ALL"] = "C"
  return env


def emulated(runner, argv, env):
  """The command and its environment: what is for the program's loader must not reach qemu's.

  qemu's own glib shall allocate by malloc: the locks of its slices are not free after a fork, and
  a child of a process with threads would wait for them for ever.
  """
  loader = {name: value for name, value in env.items() if name.startswith("LD_")}
  options = [word for name, value in loader.items() for word in ("-E", f"{name}={value}")]
  env = {name: value for name, value in env.items() if name not in loader}
  env.update(TEST_RUNNER=" ".join(runner), G_SLICE="always-malloc")
  return [*runner, *options, *argv], env


def run_program(argv, env=None, runner=RUNNER, **kw):
  """subprocess.run with captured text and a time limit that ends the program's children as well."""
  full_env = base_environment()
  full_env.update(env or {})
  timeout = kw.pop("timeout", DEFAULT_TIMEOUT_S) * (EMULATED_SLOWDOWN if runner else 1)
  given = kw.pop("input", None)
  check = kw.pop("check", False)
  kw.setdefault("stdout", subprocess.PIPE)
  kw.setdefault("stderr", subprocess.PIPE)
  kw.setdefault("stdin", subprocess.DEVNULL if given is None else subprocess.PIPE)
  if not {"text", "encoding", "errors", "universal_newlines"} & kw.keys():
    kw.update(text=True, errors="replace")
  argv = [str(word) for word in argv]
  if PLATFORM and BUILD not in pathlib.Path(argv[0]).parents:
    pytest.skip(f"not a program for {PLATFORM}")
  if PLATFORM and not os.path.exists(argv[0]):
    pytest.skip(f"not built for {PLATFORM}")
  if runner:
    argv, full_env = emulated(runner, argv, full_env)
  # A session of its own, so that a hanging program can be ended together with what it started.
  with subprocess.Popen(argv, env=full_env, start_new_session=True, **kw) as process:
    try:
      out, err = process.communicate(given, timeout=timeout)
    except BaseException:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
      raise
  if runner and isinstance(err, str):
    err = re.sub(r"^qemu: uncaught target signal .*\n", "", err, flags=re.MULTILINE)
  result = subprocess.CompletedProcess(argv, process.returncode, out, err)
  if check:
    result.check_returncode()
  return result


def pytest_collection_modifyitems(config, items):
  """On another platform the controls, which run nothing on the library, are not wanted."""
  if not PLATFORM:
    return
  controls = [item for item in items if "lib" not in item.fixturenames]
  items[:] = [item for item in items if item not in controls]
  config.hook.pytest_deselected(items=controls)
  for item in items:
    reason = platforms.why_not(PLATFORM, item.name)
    if reason:
      item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lib():
  """The absolute path of the library under test."""
  path = pathlib.Path(os.environ.get("TEST_LIB", ROOT / "libminitc.so")).resolve()
  if not path.is_file():
    pytest.exit(f"{path} is missing: run make first", returncode=2)
  return str(path)


@pytest.fixture(scope="session")
def is_debug(lib):
  """Whether that is the debug build: then it has what only that says."""
  return b"two threads at a time" in pathlib.Path(lib).read_bytes()


@pytest.fixture(scope="session")
def build():
  """The folder of compiled test programs: test below the build folder, build or $TEST_BUILD."""
  return BUILD


@pytest.fixture(scope="session")
def run_emulated(lib):
  """Runs a program on libminitc under qemu, with pages of that length."""
  def run(argv, page_bytes, env=None, **kw):
    runner = [*(RUNNER or ["qemu-x86_64"]), "-p", str(page_bytes)]
    return run_program(argv, {"LD_PRELOAD": lib, **(env or {})}, runner=runner, **kw)
  return run


@pytest.fixture(scope="session")
def run_plain():
  """Runs a program on glibc's own malloc."""
  return run_program


@pytest.fixture(scope="session")
def run_preloaded(lib):
  """Runs a program on libminitc. LD_PRELOAD in env replaces the whole list, to try other orders."""
  def run(argv, env=None, **kw):
    return run_program(argv, {"LD_PRELOAD": lib, **(env or {})}, **kw)
  return run


@pytest.fixture(scope="session")
def run_ok(run_preloaded):
  """run_preloaded, for programs that must succeed; says what the program said when one does not."""
  def run(argv, env=None, **kw):
    result = run_preloaded(argv, env, **kw)
    if result.returncode == 77:
      pytest.skip(str(result.stderr).strip())
    assert result.returncode == 0, (
        f"{result.args} ended with {result.returncode}\nstdout: {result.stdout}\n"
        f"stderr: {result.stderr}")
    return result
  return run
