"""The command minitc of this checkout, with the library under test."""
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def minitc(lib, run_plain):
  """Calls a part of the command."""
  def call(part, *words, env=None, **kw):
    return run_plain(["/usr/bin/python3", ROOT / "scripts" / "minitc", part, "--lib", lib, *words],
                     env, **kw)
  return call


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
  """Compiles a program in C, once for each way."""
  folder = tmp_path_factory.mktemp("compiled")
  folder.chmod(0o755)

  def build(name, *options, source="int main(void) { return 0; }", compiler="gcc"):
    path = folder / name
    if not path.exists():
      subprocess.run([compiler, "-O1", "-w", "-fno-builtin", *options, "-x", "c", "-", "-o", path],
                     input=source, text=True, check=True)
    return path
  return build
