"""Programs built with sanitizers, which bring an allocator of their own: the one that comes first
serves, and where that is the wrong one a line says so."""
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent / "observed.c"
# A runtime in the program itself comes first; that of undefined behaviour has no malloc.
FIRST = {
    "gcc_address": ["gcc", "-fsanitize=address", "-static-libasan"],
    "gcc_thread": ["gcc", "-fsanitize=thread", "-static-libtsan"],
    "gcc_undefined": ["gcc", "-fsanitize=undefined"],
    "clang_address": ["clang", "-fsanitize=address"],
    "clang_leak": ["clang", "-fsanitize=leak"],
    "clang_memory": ["clang", "-fsanitize=memory"],
    "clang_thread": ["clang", "-fsanitize=thread"],
}
# gcc's default, a shared runtime, comes behind what is preloaded.
BEHIND = {"libasan": ["gcc", "-fsanitize=address"], "liblsan": ["gcc", "-fsanitize=leak"],
          "libtsan": ["gcc", "-fsanitize=thread"]}
LEAK, OVERRUN, USE, RACE = ("LeakSanitizer: detected memory leaks", "heap-buffer-overflow",
                            "heap-use-after-free", "ThreadSanitizer: data race")
FINDS = {
    "gcc_address": {"leak": LEAK, "overrun": OVERRUN, "use_after_free": USE},
    "gcc_thread": {"race": RACE},
    "gcc_undefined": {"undefined_shift": "shift exponent 40 is too large"},
    "clang_address": {"leak": LEAK, "overrun": OVERRUN, "use_after_free": USE},
    "clang_leak": {"leak": LEAK},
    "clang_thread": {"race": RACE},
    "libasan": {"leak": LEAK, "overrun": OVERRUN, "use_after_free": USE},
    "liblsan": {"leak": LEAK},
    "libtsan": {"race": RACE},
}
FINDINGS = [(how, case) for how in FINDS for case in FINDS[how]]
REFUSED = "==ASan runtime does not come first in initial library list; "
WARNED = ("libminitc: a sanitizer's runtime comes behind libminitc.so, and what it reports is "
          "wrong: name it first in LD_PRELOAD\n")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
  """observed.c, compiled once for each way."""
  folder = tmp_path_factory.mktemp("sanitized")

  def compiled(how):
    words = (FIRST | BEHIND)[how]
    if shutil.which(words[0]) is None:
      pytest.skip(f"{words[0]} is not installed")
    path = folder / how
    if not path.exists():
      subprocess.run([*words, "-O1", "-g", "-fno-builtin", "-pthread", "-w", SOURCE, "-o", path],
                     check=True)
    return path
  return compiled


def preload(how, lib):
  """The library alone, or behind a shared runtime."""
  if how not in BEHIND:
    return {}
  found = subprocess.run(["gcc", f"-print-file-name={how}.so"], capture_output=True, text=True,
                         check=True).stdout.strip()
  return {"LD_PRELOAD": f"{pathlib.Path(found).resolve()}:{lib}"}


@pytest.mark.parametrize("how", FIRST | BEHIND)
def test_runs_behind_the_runtime(run_ok, program, lib, how):
  result = run_ok([program(how), "no_mistake"], preload(how, lib))
  assert (result.stdout, result.stderr) == ("done\n", "")


@pytest.mark.parametrize("how, case", FINDINGS)
def test_finds_behind_the_runtime(run_plain, run_preloaded, program, lib, how, case):
  """What the sanitizer says, with the library as without it."""
  for result in (run_plain([program(how), case]),
                 run_preloaded([program(how), case], preload(how, lib))):
    assert FINDS[how][case] in result.stderr
    assert "libminitc" not in result.stderr


@pytest.mark.parametrize("how", BEHIND)
def test_one_line_before_the_runtime(run_preloaded, program, how):
  result = run_preloaded([program(how), "race"])
  first, _, rest = result.stderr.partition("\n")
  if how == "libasan":
    assert result.returncode == 1 and REFUSED in first and rest == ""
  else:
    assert first + "\n" == WARNED
    assert result.stdout == "done\n" and rest == "" or RACE in rest


def test_leaks_are_not_found_before_the_runtime(run_preloaded, program):
  """What the line is about: the objects are ours, and the checker of leaks looks at its own."""
  result = run_preloaded([program("liblsan"), "leak"])
  assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", WARNED)
