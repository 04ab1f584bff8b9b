"""g++ and make on libminitc produce the same machine code as without it."""
import shutil

from side_by_side import (HERE, ROOT, environment, finish, require_same, require_same_files,
                          run_both, start, tail, tool)


def test_gxx_writes_the_same_shared_object(lib, tmp_path):
  argv = [tool("g++", "g++"), "-std=c++20", "-O2", "-fPIC", "-shared", HERE / "templates.cc",
          "-o", "out.so"]
  # At least the driver, cc1plus, the assembler and the linker.
  plain, preloaded = run_both(tmp_path, lib, argv, processes=4)
  require_same_files(plain, preloaded, "out.so")


def build_objects(lib, tmp_path):
  """make -j2 of every third object of the library, in a folder of its own; gives the objects' bytes
  and make's outcome. Each build has the same paths, because a compiler may write paths into what it
  makes."""
  folder = tmp_path / "build"
  sources = sorted(path.relative_to(ROOT) for path in (ROOT / "core").glob("*.cc"))[::3]
  objects = [folder / "lib" / source.with_suffix(".o") for source in sources]
  argv = [tool("make", "make"), "-C", ROOT, "-j2", f"BUILD={folder}", *objects]
  folder.mkdir()
  outcome = finish(start(argv, environment(tmp_path, lib), folder), folder, 300)
  assert outcome.status == 0, f"make: status {outcome.status}\n{tail(outcome.err)}"
  contents = {path.name: path.read_bytes() for path in objects}
  shutil.rmtree(folder)
  return contents, outcome


def test_make_builds_the_same_objects(lib, tmp_path):
  plain, plain_make = build_objects(None, tmp_path)
  preloaded, preloaded_make = build_objects(lib, tmp_path)
  # make, then per source at least a driver, a compiler and an assembler.
  assert len(plain) >= 5 and len(preloaded_make.notes) > 3 * len(plain)
  # Two jobs at a time: which line comes first is a matter of luck.
  require_same("make's output", *(b"\n".join(sorted(outcome.out.splitlines()))
                                  for outcome in (plain_make, preloaded_make)))
  for name, content in plain.items():
    require_same(name, content, preloaded[name])
