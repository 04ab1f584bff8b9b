"""python3 with every object from malloc: json, threads, processes (see python_work.py)."""
from side_by_side import HERE, run_both, tool


def test_python_computes_the_same(lib, tmp_path):
  # /usr/bin/python3 itself, not the interpreter that runs the tests: that one may bring another
  # malloc. The hash seed decides the order of sets.
  argv = [tool("/usr/bin/python3", "python3"), HERE / "python_work.py"]
  _, preloaded = run_both(tmp_path, lib, argv, PYTHONMALLOC="malloc", PYTHONHASHSEED="0",
                          PYTHONDONTWRITEBYTECODE="1")
  assert len(preloaded.out.splitlines()) == 6
