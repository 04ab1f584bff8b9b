"""Options come from the caller: a program that has more rights than its caller ignores them."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

OPTIONS = {"MINITC_STATS": "1", "MINITC_VERBOSE": "1", "MINITC_NONSENSE": "1",
           "MINITC_CHECK_FREE": "many", "MINITC_ON_BAD_FREE": "hope"}
NOBODY = 65534


@pytest.fixture(scope="module")
def linked(lib):
  """secure.c linked with a copy of the library, both where every user can read them. Not in the
  folder of pytest, since each pytest that starts beside this one closes it to other users."""
  with tempfile.TemporaryDirectory(prefix="minitc-secure-", dir="/tmp") as name:
    folder = pathlib.Path(name)
    folder.chmod(0o755)
    shutil.copy(lib, folder / "libminitc.so")
    source = os.path.join(os.path.dirname(__file__), "secure.c")
    program = folder / "secure"
    subprocess.run(["gcc", "-O1", "-fno-builtin", "-pthread", source, "-o", program,
                    folder / "libminitc.so", f"-Wl,-rpath,{folder}"], check=True)
    yield program


def test_options_count_without_extra_rights(run_plain, linked):
  result = run_plain([linked], OPTIONS)
  assert (result.returncode, result.stdout) == (0, "plain libminitc.so\n")
  assert "MINITC_NONSENSE" in result.stderr and "thread-cached" in result.stderr


def run_with_extra_rights(run, program, **kw):
  result = run([program], OPTIONS, **kw)
  if result.stdout.startswith("plain"):
    pytest.skip("the file system is mounted nosuid")
  assert (result.returncode, result.stdout, result.stderr) == (0, "secure libminitc.so\n", "")


def given_to(linked, mode, owner, owner_group):
  """A copy of the program that belongs to that owner and group and has the given mode."""
  if os.geteuid() != 0:
    pytest.skip("only root can give a program to somebody else")
  program = linked.with_name(f"secure_{mode:o}")
  shutil.copy(linked, program)
  os.chown(program, owner, owner_group)
  program.chmod(mode)
  return program


AS_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def test_options_are_ignored_set_user_id(run_plain, linked):
  """A program of root's, started by nobody."""
  run_with_extra_rights(run_plain, given_to(linked, 0o4755, 0, 0), **AS_NOBODY)


def test_options_are_ignored_set_group_id(run_plain, linked):
  run_with_extra_rights(run_plain, given_to(linked, 0o2755, 0, NOBODY))


def test_options_are_ignored_file_capabilities(run_plain, linked):
  """A program with a right of root's, started by nobody."""
  program = given_to(linked, 0o755, 0, 0)
  done = subprocess.run(["setcap", "cap_net_bind_service=ep", program], capture_output=True,
                        text=True, check=False)
  if done.returncode != 0:
    pytest.skip(done.stderr.strip())
  run_with_extra_rights(run_plain, program, **AS_NOBODY)
