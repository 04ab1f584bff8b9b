#!/usr/bin/python3
"""Checks the tables of docs/compatibility.md: every row is there, and what it says is tested is.

Usage: check_compatibility.py [--ran RESULTS_DIR]

A row is: | A7 | what breaks elsewhere | with libminitc | tests |. The last cell names tests,

  `test/preload/test_x.py::test_name`          all sets of parameters of a pytest test
  `test/preload/test_x.py::test_name[some]`    one of them
  `test/unit/x_test.cc::name of the case`      a Catch2 test case

or begins with "no test: " and a reason. Each named test must exist. With --ran the folder of the
results of scripts/run_tests.py must show that each ran and passed, in all its sets of parameters
that were not skipped, and at least in one.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

DOCUMENT = pathlib.Path("docs/compatibility.md")
LAST_ROWS = {"A": 20, "B": 14, "C": 15, "D": 14}
ROW = re.compile(r"^\| ([A-Z]\d+) \|(.*)\|$", re.M)
REFERENCE = re.compile(r"`(test/[\w/]+\.(?:py|cc))::([^`]+)`")
NO_TEST = re.compile(r"no test: \S")
CATCH_CASE = re.compile(r'\bTEST_CASE\s*\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)')


def rows(text):
  """Yields the name and the cells of each row."""
  for match in ROW.finditer(text):
    yield match.group(1), [cell.strip() for cell in match.group(2).split(" | ")]


def check_rows(table):
  """The faults of the tables themselves, and the named tests as {reference: [rows]}."""
  errors = []
  named = collections.defaultdict(list)
  names = [name for name, _ in table]
  expected = [f"{letter}{n}" for letter, last in LAST_ROWS.items() for n in range(1, last + 1)]
  if names != expected:
    missing = [name for name in expected if name not in names]
    errors.append(f"the rows are not {expected[0]} to {expected[-1]} in order"
                  + (f"; missing: {' '.join(missing)}" if missing else ""))
  for name, cells in table:
    if len(cells) != 3 or not all(cells):
      errors.append(f"{name}: a row has four cells, none of them empty")
      continue
    references = REFERENCE.findall(cells[2])
    if cells[2].count("`") != 2 * len(references):
      errors.append(f"{name}: what is in backquotes is no test: {cells[2]}")
    if bool(references) == bool(NO_TEST.match(cells[2])):
      errors.append(f'{name}: names no test, and no reason either ("no test: …")')
    for reference in references:
      named[reference].append(name)
  return errors, named


def all_pytest_tests():
  """What pytest finds, as (file, name with parameters). Nothing needs to be built for it."""
  done = subprocess.run(["/usr/bin/python3", "-m", "pytest", "--collect-only", "-q", "-p",
                         "no:cacheprovider", "test"], capture_output=True, text=True, check=False)
  found = {tuple(line.split("::", 1)) for line in done.stdout.splitlines() if "::" in line}
  if done.returncode != 0 or not found:
    sys.exit(f"pytest cannot collect the tests:\n{done.stdout}{done.stderr}")
  return found


def all_catch_cases():
  """The Catch2 test cases, as (file, name)."""
  found = set()
  for path in pathlib.Path("test").rglob("*.cc"):
    for match in CATCH_CASE.finditer(path.read_text(encoding="utf-8")):
      literals = re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(1))
      found.add((str(path), literals[0].replace('\\"', '"')))
  return found


def matches(reference, test):
  """Whether the test is what the reference names, or one of its sets of parameters."""
  return test[0] == reference[0] and (
      test[1] == reference[1] or test[1].split("[")[0] == reference[1])


def read_results(folder, cases):
  """The results of a run as {(file, name): {"passed", "failed", "skipped"}}."""
  file_of_case = {name: path for path, name in cases}
  results = collections.defaultdict(set)
  for path in sorted(folder.glob("*.xml")):
    for case in xml.parse(path).getroot().iter("testcase"):
      name = case.get("name")
      if name.split("/")[0] in file_of_case:  # of Catch2, which appends the section
        test = (file_of_case[name.split("/")[0]], name.split("/")[0])
      else:
        test = (case.get("classname").replace(".", "/") + ".py", name)
      tags = {child.tag for child in case}
      outcome = ("failed" if tags & {"failure", "error"} else
                 "skipped" if "skipped" in tags else "passed")
      results[test].add(outcome)
  return results


def check_ran(reference, results):
  """What is wrong with the results of a reference, or None."""
  outcomes = set()
  for test, some in results.items():
    if matches(reference, test):
      outcomes |= some
  if "failed" in outcomes:
    return "failed"
  if "passed" not in outcomes:
    return "was skipped" if outcomes else "did not run"
  return None


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--ran", type=pathlib.Path, metavar="RESULTS_DIR")
  args = parser.parse_args()

  table = list(rows(DOCUMENT.read_text(encoding="utf-8")))
  errors, named = check_rows(table)
  cases = all_catch_cases()
  tests = all_pytest_tests() | cases
  results = read_results(args.ran, cases) if args.ran else None
  for reference, where in named.items():
    place = f"{', '.join(where)}: {'::'.join(reference)}"
    if not any(matches(reference, test) for test in tests):
      errors.append(f"{place}: there is no such test")
    elif args.ran:
      fault = check_ran(reference, results)
      if fault:
        errors.append(f"{place}: {fault}")
  for line in errors:
    print(line)
  untested = [name for name, cells in table if NO_TEST.match(cells[-1])]
  print(f"{len(table)} rows, {len(named)} tests named, {len(untested)} rows without a test: "
        f"{' '.join(untested)}")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
