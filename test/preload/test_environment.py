"""What surrounds a program: its variables, its descriptors, its root folder; the library reads the
first, leaves the second alone, and needs nothing of the third."""
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

NOBODY = 65534


@pytest.fixture
def program(build):
  return build / "preload" / "environment"


def test_environment_is_left_alone(run_plain, lib):
  given = {"LD_PRELOAD": lib, "MINITC_STATS": "0", "MINITC_FREE_BOUND": "4M", "A": "x" * 100000}
  result = run_plain(["env", "-i", *(f"{name}={value}" for name, value in given.items()), "env",
                      "-0"])
  assert result.stdout.split("\0")[:-1] == [f"{name}={value}" for name, value in given.items()]
  assert result.stderr == ""


def test_nothing_but_the_library_in_the_environment(run_plain, lib):
  result = run_plain(["env", "-i", f"LD_PRELOAD={lib}", "/bin/sh", "-c", "echo $LD_PRELOAD"])
  assert (result.returncode, result.stdout, result.stderr) == (0, f"{lib}\n", "")


def test_option_behind_a_large_environment(run_ok):
  """More than a megabyte of variables that sort before the option, and as many behind."""
  variables = {f"{letter}{i}": "y" * 50 for letter in "AZ" for i in range(10000)}
  result = run_ok(["/bin/true"], {**variables, "MINITC_VERBOSE": "1"})
  assert "MINITC_VERBOSE=1" in result.stderr


def test_environment_that_is_gone(run_ok, program, build, lib):
  """A library preloaded behind ours starts before it, and leaves it none."""
  result = run_ok([program, "cleared"], {
      "LD_PRELOAD": f"{lib}:{build / 'preload' / 'lib_clearenv.so'}", "MINITC_STATS": "1"})
  assert (result.stdout, result.stderr) == ("", "")


def test_odd_environment(run_ok, program):
  """Variables without a name, a value or an equals sign are none, and none is changed."""
  result = run_ok([program, "odd"])
  assert (result.stdout, result.stderr) == ("", "")


def test_no_descriptor_is_left_open(run_ok, program):
  result = run_ok([program, "descriptors"])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("bad_free", [False, True])
def test_file_in_the_place_of_stderr(run_preloaded, program, tmp_path, bad_free):
  """Where stderr was closed, its number belongs to the next file that the program opens. No report
  and no last words go there, which also sqlite must fear."""
  file = tmp_path / "file"
  file.write_text("precious")
  words = [program, "stderr_is_a_file", file, *(["free"] if bad_free else [])]
  result = run_preloaded(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], {"MINITC_STATS": "1"})
  assert result.returncode == (-signal.SIGABRT if bad_free else 0)
  assert file.read_text() == "precious"


# A root folder with copies of programs and what their loader needs: no /proc, /sys, /dev or /etc.

def needed_by(program):
  """The program's libraries and its loader."""
  listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
  return re.findall(r"(/\S+) \(0x", listing)


@pytest.fixture
def new_root(lib, tmp_path):
  """Makes a root folder that holds the library and these programs; returns the folder."""
  def make(programs):
    tmp_path.chmod(0o755)
    shutil.copy(lib, tmp_path / "libminitc.so")
    for program in map(str, programs):
      for path in [program, *needed_by(program)]:
        copy = tmp_path / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path
  return make


def inside(root, user=0):
  """For run_plain: what a child does before it runs the program."""
  def enter():
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
  if os.geteuid() != 0:
    pytest.skip("only root can change the root folder")
  return {"preexec_fn": enter}


@pytest.mark.parametrize("case", ["no_mistake", "leak"])
def test_empty_root(run_plain, new_root, build, case):
  program = build / "preload" / "observed"
  root = new_root([program])
  assert sorted(path.name for path in root.iterdir() if path.name not in ("lib", "lib64")) == sorted(
      {"libminitc.so", pathlib.Path(str(program).lstrip("/")).parts[0]})
  result = run_plain([program, case], {"LD_PRELOAD": "/libminitc.so", "MINITC_STATS": "1"},
                     **inside(root))
  assert (result.returncode, result.stdout) == (0, "done\n")
  assert "libminitc: live " in result.stderr


SCRIPT = """
set -e
seq 3000 | sort -r | grep -c 7
cat /etc/ld.so.preload | tr a-z A-Z
exec ls -d /etc
"""


@pytest.fixture
def with_preload_file(new_root, build):
  """A root folder whose etc/ld.so.preload names the library, as root would for a whole machine."""
  tools = [shutil.which(name) for name in ("sh", "seq", "sort", "grep", "cat", "tr", "ls")]
  root = new_root([*tools, build / "preload" / "secure"])
  (root / "etc").mkdir()
  (root / "etc" / "ld.so.preload").write_text("/libminitc.so\n")
  return root


def test_preload_file(run_plain, with_preload_file):
  """Programs start, each on the library, and say nothing."""
  expected = "813\n/LIBMINITC.SO\n/etc\n"
  result = run_plain([shutil.which("sh"), "-c", SCRIPT], **inside(with_preload_file))
  assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")
  result = run_plain([shutil.which("sh"), "-c", SCRIPT], {"MINITC_VERBOSE": "1"}, **inside(with_preload_file))
  assert (result.returncode, result.stdout) == (0, expected)
  assert result.stderr.count("MINITC_VERBOSE=1") == 7


@pytest.mark.parametrize("user", [0, NOBODY])
def test_preload_file_and_raised_rights(run_plain, with_preload_file, build, user):
  """It is read for a set-user-ID program as well, which then ignores its caller's options."""
  program = build / "preload" / "secure"
  copy = with_preload_file / str(program).lstrip("/")
  for folder in copy.relative_to(with_preload_file).parents:
    (with_preload_file / folder).chmod(0o755)
  copy.chmod(0o4755)
  result = run_plain([program], {"MINITC_VERBOSE": "1", "MINITC_NONSENSE": "1"},
                     **inside(with_preload_file, user))
  if user != 0 and result.stdout.startswith("plain"):
    pytest.skip("the file system is mounted nosuid")
  kind = "plain" if user == 0 else "secure"
  assert (result.returncode, result.stdout) == (0, f"{kind} libminitc.so\n")
  assert ("MINITC_NONSENSE" in result.stderr) == (user == 0)
