"""Region pools: preloaded, linked, absent; under std::pmr; under AddressSanitizer."""
import pathlib
import re
import shutil
import subprocess

import pytest

from cases import cases_of

FOLDER = pathlib.Path(__file__).resolve().parent
SPECIAL = ("with_and_without", "reports")


@pytest.fixture
def beside(lib):
  """Where the loader finds the library that a program is linked with."""
  return {"LD_LIBRARY_PATH": str(pathlib.Path(lib).parent)}


@pytest.mark.parametrize("case", [case for case in cases_of("pools.c") if case not in SPECIAL])
def test_pools(run_ok, build, case):
  result = run_ok([build / "preload" / "pools", case])
  assert (result.stdout, result.stderr) == ("", "")


def test_with_and_without(run_ok, run_plain, build):
  """Weak symbols: the same program does its work with malloc where there are no pools."""
  command = [build / "preload" / "pools", "with_and_without"]
  assert run_ok(command).stdout == "pooled\n"
  result = run_plain(command)
  assert (result.returncode, result.stdout) == (0, "malloced\n")


def test_reports(run_ok, build):
  result = run_ok([build / "preload" / "pools", "reports"])
  first, second = re.split("(?<=\n)(?=libminitc: heap, in bytes)", result.stderr)
  # Two chunks of 4,096 bytes, and a block of 10,000.
  assert "\nlibminitc: 2 region pools of 18192 bytes\n" in first
  assert "pools" not in second
  assert '\n<pools count="2" bytes="18192"/>\n' in result.stdout


def test_linked(run_plain, run_ok, build, beside):
  """A program linked with the library: all of it works without a preload."""
  for run, env in ((run_plain, beside), (run_ok, beside)):
    result = run([build / "preload" / "pools_linked"], env)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize("case", cases_of("pool_resource.cc"))
def test_pool_resource(run_plain, build, beside, case):
  result = run_plain([build / "preload" / "pool_resource", case], beside)
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("what", ["nothing", "overrun", "use_after_reset"])
def test_address_sanitizer(run_plain, lib, beside, tmp_path, compiler, what):
  """The library is not built with it, but tells it what of a pool is in use."""
  if shutil.which(compiler) is None:
    pytest.skip(f"{compiler} is not installed")
  program = tmp_path / "program"
  subprocess.run([compiler, "-fsanitize=address", "-g", FOLDER / "pool_overrun.c", "-o", program,
                  lib], check=True)
  result = run_plain([program, what], beside)
  if what == "nothing":
    assert (result.returncode, result.stdout, result.stderr) == (0, "survived\n", "")
  else:
    assert "AddressSanitizer: use-after-poison" in result.stderr
    assert "survived" not in result.stdout and result.returncode != 0
