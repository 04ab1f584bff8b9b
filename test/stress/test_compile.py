"""g++ and make on libminitc produce the same machine code as without it."""
import shutil

from side_by_side import (HERE, ROOT, environment, finish, require_same, require_same_files,
                          run_both, start, tail, tool)


def test_gxx_writes_the_same_object_file(lib, tmp_path):
  argv = [tool("g++", "g++"), "-std=c++20", "-O2", "-c", HERE / "templates.cc", "-o", "out.o"]
  # At least the driver, cc1plus and the assembler.
  plain, preloaded = run_both(tmp_path, lib, argv, processes=3)
  require_same_files(plain, preloaded, "out.o")


def build_library(lib, tmp_path):
  """make -j2 in a folder of its own; gives the library's bytes and .text, and make's outcome. Each
  build has the same paths, because a compiler may write paths into what it makes."""
  folder = tmp_path / "build"
  argv = [tool("make", "make"), "-C", ROOT, "-j2", f"BUILD={folder}", f"LIB={folder}/made.so",
          f"{folder}/made.so"]
  folder.mkdir()
  outcome = finish(start(argv, environment(tmp_path, lib), folder), folder, 300)
  assert outcome.status == 0, f"make: status {outcome.status}\n{tail(outcome.err)}"
  whole = (folder / "made.so").read_bytes()
  objcopy = [tool("objcopy", "binutils"), "-O", "binary", "--only-section=.text", "made.so", "text"]
  assert finish(start(objcopy, environment(tmp_path), folder), folder, 60).status == 0
  text = (folder / "text").read_bytes()
  shutil.rmtree(folder)
  return whole, text, outcome


def test_make_builds_the_same_library(lib, tmp_path):
  plain, plain_text, plain_make = build_library(None, tmp_path)
  preloaded, preloaded_text, preloaded_make = build_library(lib, tmp_path)
  # make, then per source at least a driver, a compiler and an assembler.
  sources = len(list((ROOT / "core").glob("*.cc")))
  assert sources > 0 and len(preloaded_make.notes) > 3 * sources
  # Two jobs at a time: which line comes first is a matter of luck.
  require_same("make's output", *(b"\n".join(sorted(outcome.out.splitlines()))
                                  for outcome in (plain_make, preloaded_make)))
  require_same("the library's .text", plain_text, preloaded_text)
  require_same("the library", plain, preloaded)
