"""From calls before relocation to frees after a thread's or the program's end."""
import pytest

from cases import cases_of


@pytest.fixture
def beside(build):
  """Where the loader finds the libraries that some programs are linked with."""
  return {"LD_LIBRARY_PATH": str(build / "preload")}


PRELOADS = {"linked": "{lib}", "preloaded_after": "{lib}:{ifunc}",
            "preloaded_before": "{ifunc}:{lib}"}


@pytest.mark.parametrize("how", PRELOADS)
def test_ifunc_resolver_of_a_library(run_ok, build, beside, lib, how):
  """The order of the list is the order of relocation, reversed: each is the earlier one once."""
  preload = PRELOADS[how].format(lib=lib, ifunc=build / "preload" / "lib_ifunc.so")
  run_ok([build / "preload" / "ifunc_library"], {**beside, "LD_PRELOAD": preload})


@pytest.mark.parametrize("bind", [{}, {"LD_BIND_NOW": "1"}], ids=["lazy", "now"])
@pytest.mark.parametrize("program", ["ifunc_library", "ifunc_program", "start_and_end"])
def test_binding(run_ok, build, beside, program, bind):
  run_ok([build / "preload" / program], {**beside, **bind})


@pytest.mark.parametrize("env", [{}, {"MINITC_CHECK_FREE": "1"}, {"MINITC_STATS": "1"}],
                         ids=["plain", "check_free", "stats"])
def test_start_and_end(run_ok, build, beside, env):
  result = run_ok([build / "preload" / "start_and_end"], {**beside, **env})
  assert set(result.stdout.splitlines()) == {
      "atexit", "on_exit", "static object", "destructor", "library destroyed"}
  assert (result.stderr != "") == ("MINITC_STATS" in env)


@pytest.mark.parametrize("case", cases_of("threads.c"))
def test_threads(run_ok, build, case):
  result = run_ok([build / "preload" / "threads", case])
  assert result.stdout == ("outlived\n" if case == "main_exits_first" else "")
  assert result.stderr == ""


@pytest.mark.parametrize("case", ["early_key_destructor", "both_key_destructors",
                                  "strerror_in_fresh_threads", "objects_freed_by_dying_threads"])
def test_threads_without_thread_caches(run_ok, build, case):
  run_ok([build / "preload" / "threads", case], {"MINITC_CHECK_FREE": "1"})


@pytest.mark.parametrize("case", cases_of("thread_local.cc"))
def test_thread_local_objects(run_ok, build, case):
  result = run_ok([build / "preload" / "thread_local", case])
  assert (result.stdout, result.stderr) == ("", "")


def test_coroutines(run_ok, build):
  result = run_ok([build / "preload" / "coroutines"])
  assert (result.stdout, result.stderr) == ("", "")
