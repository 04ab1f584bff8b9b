"""Plugins, late C++, operator new without memory, a second preload, and the library as a plugin."""
import pathlib
import shutil

import pytest

from cases import cases_of

ORDERS = {"first": "{lib}:{other}", "last": "{other}:{lib}"}


@pytest.mark.parametrize("case", cases_of("plugins.c"))
def test_plugins(run_ok, build, case):
  folder = build / "preload"
  result = run_ok([folder / "plugins", case, folder / "lib_plugin.so", folder / "lib_throwing.so"])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("new_failure.cc"))
def test_new_without_memory(run_ok, build, case):
  result = run_ok([build / "preload" / "new_failure", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", [case for case in cases_of("new_failure.cc")
                                  if case != "largest_requests"])
def test_case_holds_for_libstdcxx(run_plain, build, case):
  """The control: what libstdc++'s own operator new does is what ours has to do."""
  result = run_plain([build / "preload" / "new_failure", case])
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bind", [{}, {"LD_BIND_NOW": "1"}], ids=["lazy", "now"])
def test_second_preload(run_ok, build, lib, order, bind):
  preload = ORDERS[order].format(lib=lib, other=build / "preload" / "lib_interpose.so")
  result = run_ok([build / "preload" / "interposed"], {"LD_PRELOAD": preload, **bind}, timeout=20)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("command", [
    ["sort", "/etc/passwd"], ["/usr/bin/python3", "-c", "print(2)"],
    ["bash", "-c", "echo $((1 + 1))"]], ids=lambda words: words[0])
def test_tools_under_second_preload(run_ok, run_plain, build, lib, order, command):
  preload = ORDERS[order].format(lib=lib, other=build / "preload" / "lib_interpose.so")
  result = run_ok(command, {"LD_PRELOAD": preload}, timeout=20)
  expected = run_plain(command)
  assert (result.stdout, result.stderr) == (expected.stdout, "")


def test_library_as_a_plugin(run_plain, build, lib):
  result = run_plain([build / "preload" / "load_library", lib], timeout=20)
  assert result.returncode == 0, result.stderr
  assert (result.stdout, result.stderr) == ("", "")


def test_preloaded_and_opened_again(run_preloaded, build, lib):
  """The handle then is the preloaded library's own, so the two mallocs are one."""
  result = run_preloaded([build / "preload" / "load_library", lib], timeout=20)
  assert result.returncode == 1
  assert "library_malloc != malloc" in result.stderr


@pytest.mark.parametrize("case", cases_of("own_operators.cc"))
def test_own_operators(run_ok, build, case):
  result = run_ok([build / "preload" / "own_operators", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("own_operators.cc"))
def test_own_operators_beside_jemalloc(run_ok, build, lib, case):
  """As in a program that is linked with it: its operators come next after ours."""
  found = sorted(pathlib.Path("/usr/lib").glob("*/libjemalloc.so.2"))
  if not found:
    pytest.skip("libjemalloc2 is not installed")
  result = run_ok([build / "preload" / "own_operators", case], {"LD_PRELOAD": f"{lib}:{found[0]}"})
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", cases_of("own_operators.cc"))
def test_own_operators_hold_for_libstdcxx(run_plain, build, case):
  """The control: these programs are right."""
  result = run_plain([build / "preload" / "own_operators", case])
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("case", cases_of("own_malloc.c"))
def test_own_malloc(run_ok, build, case):
  """What glibc lacks or makes of realloc must not bring our blocks to a program with its own."""
  result = run_ok([build / "preload" / "own_malloc", case])
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", ["resized_arrays", "what_libc_allocates"])
def test_own_malloc_holds_for_glibc(run_plain, build, case):
  """The control: these programs are right. free_sized() is not in glibc 2.36."""
  result = run_plain([build / "preload" / "own_malloc", case])
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("case", cases_of("own_arrays.cc"))
def test_own_arrays(run_ok, build, case):
  result = run_ok([build / "preload" / "own_arrays", case])
  assert (result.stdout, result.stderr) == ("", "")


def test_static_tls_of_thirty_libraries(run_ok, build, tmp_path):
  """About 1.6 KB is all that glibc leaves to libraries that are opened late; 30 use 960 bytes."""
  copies = [tmp_path / f"lib_{i}.so" for i in range(30)]
  for copy in copies:
    shutil.copy(build / "preload" / "lib_static_tls.so", copy)
  run_ok([build / "preload" / "static_tls", *copies])
