"""Plugins opened with RTLD_DEEPBIND share the program's heap; dlopen and dlmopen are otherwise what
they were."""
import shutil

import pytest

from cases import cases_of

KEEP = {"MINITC_KEEP_DEEPBIND": "1"}
# These need another library in the preload list.
ACCOMPANIED = {"early_constructor", "wrapper_behind", "wrapper_in_front", "wrapped_dlsym"}
ALONE = [case for case in cases_of("deepbind.c") if case not in ACCOMPANIED]
# What glibc itself does without a preload.
NEUTRAL = ["new_space_plain", "new_space_deep", "errors"]


@pytest.fixture
def command(build, tmp_path):
  folder = build / "preload"
  plugin = shutil.copy(folder / "lib_deepbind.so", tmp_path / "lib_neighbour.so")
  opener = shutil.copy(folder / "lib_opener.so", tmp_path)
  return lambda case: [folder / "deepbind", case, plugin, opener]


@pytest.fixture
def preload(lib, build):
  """A list of libminitc and another library of this folder, in the order of the words."""
  def of(*names):
    return {"LD_PRELOAD": ":".join(lib if name == "libminitc" else
                                   str(build / "preload" / f"{name}.so") for name in names)}
  return of


@pytest.mark.parametrize("case", ALONE)
def test_deepbind(run_ok, command, case):
  result = run_ok(command(case))
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", NEUTRAL)
def test_case_holds_for_glibc(run_plain, command, case):
  """The control: the wrappers change nothing here."""
  result = run_plain(command(case))
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("case", NEUTRAL)
def test_neutral_case_with_the_flag_kept(run_ok, command, case):
  result = run_ok(command(case), KEEP)
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("case", sorted(set(ALONE) - set(NEUTRAL)))
def test_flag_that_is_kept_separates_the_heaps(run_preloaded, command, case):
  """The control: this is what the flag does to a program that has another malloc than libc's."""
  result = run_preloaded(command(case), KEEP)
  assert result.returncode == 1
  assert "plugin.malloc_address() == (void*)malloc" in result.stderr


@pytest.mark.parametrize("keep", [{}, KEEP], ids=["cleared", "kept"])
def test_plugin_opened_by_a_constructor(run_preloaded, build, preload, command, keep):
  """It runs before the library's own constructor; the options count all the same."""
  env = {**preload("libminitc", "lib_early_opener"), **keep,
         "EARLY_PLUGIN": str(build / "preload" / "lib_deepbind.so")}
  result = run_preloaded(command("early_constructor"), env)
  assert result.returncode == (1 if keep else 0), result.stderr


@pytest.mark.parametrize("case, names", [
    ("wrapper_behind", ["libminitc", "lib_wrap_dlopen"]),
    ("wrapper_in_front", ["lib_wrap_dlopen", "libminitc"])])
@pytest.mark.parametrize("bind", [{}, {"LD_BIND_NOW": "1"}], ids=["lazy", "now"])
def test_second_wrapper(run_ok, preload, command, case, names, bind):
  result = run_ok(command(case), {**preload(*names), **bind})
  assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("how", ["next", "null", "reenter"])
@pytest.mark.parametrize("names", [["libminitc", "lib_wrap_dlsym"], ["lib_wrap_dlsym", "libminitc"]],
                         ids=["first", "last"])
def test_wrapped_dlsym(run_ok, preload, command, how, names):
  result = run_ok(command("wrapped_dlsym"), {**preload(*names), "WRAP_DLSYM": how}, timeout=20)
  assert (result.stdout, result.stderr) == ("", "")


def test_own_pointer_freed_by_a_plugin_that_kept_the_flag(run_preloaded, build):
  """glibc's free then gets it, and says so; nothing of ours is asked."""
  folder = build / "preload"
  result = run_preloaded(["/usr/bin/python3", "-c", f"""
import ctypes, os
program = ctypes.CDLL(None)
program.malloc.restype = ctypes.c_void_p
plugin = ctypes.CDLL({str(folder / "lib_deepbind.so")!r}, mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
plugin.plugin_release(ctypes.c_void_p(program.malloc(100)))
print("survived")
"""], KEEP)
  assert result.returncode < 0 and "survived" not in result.stdout


def test_own_pointer_freed_by_a_plugin_of_python(run_ok, build):
  folder = build / "preload"
  result = run_ok(["/usr/bin/python3", "-c", f"""
import ctypes, os
program = ctypes.CDLL(None)
program.malloc.restype = ctypes.c_void_p
plugin = ctypes.CDLL({str(folder / "lib_deepbind.so")!r}, mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
for i in range(1000):
  plugin.plugin_release(ctypes.c_void_p(program.malloc(100 + i)))
print("survived")
"""])
  assert (result.stdout, result.stderr) == ("survived\n", "")
