#!/usr/bin/python3
"""Joins the three places where an invariant stands: a sentence, an assert and a test.

Usage: check_invariants.py [--table]

  docs/invariants.md        - **I7** Every object of a small span is in exactly one place.
  core/, preload/           MINITC_ASSERT(span->used <= span->capacity);  // I7
  test/                     TEST_CASE("a span goes back when its last object comes home", "[I7]")

Each number must be in all three, and in the document once. A static_assert, a MINITC_CHECK or a
MINITC_EXPECT will do as well as a MINITC_ASSERT.
"""

import collections
import pathlib
import re
import sys

DOCUMENT = pathlib.Path("docs/invariants.md")
SENTENCE = re.compile(r"^[-*] \*\*I(\d+)\*\*[ .:]+(.*)$", re.M)
ASSERT = re.compile(r"\b(?:MINITC_ASSERT|MINITC_CHECK|MINITC_EXPECT|static_assert)\s*\(")
NUMBERS = re.compile(r"[ \t]*//[ \t]*(I\d+(?:[ ,]+I\d+)*)\b")
TEST_CASE = re.compile(r'\b(?:TEMPLATE_)?TEST_CASE\s*\(\s*((?:"(?:[^"\\]|\\.)*"\s*,?\s*)+)')


def end_of_call(text, start):
  """The index behind the parenthesis that closes the one before `start`."""
  depth = 1
  for match in re.compile(r'[()]|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'').finditer(text, start):
    depth += {"(": 1, ")": -1}.get(match.group(), 0)
    if depth == 0:
      return match.end()
  return len(text)


def asserted(text):
  """The numbers behind asserts: in a comment on the line where the statement ends."""
  for match in ASSERT.finditer(text):
    end = end_of_call(text, match.end())
    comment = NUMBERS.match(text, end + 1) if text[end:end + 1] == ";" else None
    if comment:
      yield from re.findall(r"I(\d+)", comment.group(1))


def tested(text):
  for match in TEST_CASE.finditer(text):
    yield from re.findall(r"\[I(\d+)\]", match.group(1))


def tally(folders, numbers_of):
  counts = collections.Counter()
  for folder in folders:
    for path in sorted(pathlib.Path(folder).rglob("*")):
      if path.suffix in (".h", ".cc"):
        counts.update(map(int, numbers_of(path.read_text(encoding="utf-8"))))
  return counts


def main():
  if not DOCUMENT.is_file():
    print(f"{DOCUMENT}: missing")
    return 1
  sentences = SENTENCE.findall(DOCUMENT.read_text(encoding="utf-8"))
  in_document = collections.Counter(int(number) for number, _ in sentences)
  errors = [f"{DOCUMENT}: I{n} has no sentence" for n, text in sentences if not text.strip()]
  in_code = tally(["core", "preload"], asserted)
  in_tests = tally(["test"], tested)
  numbers = sorted(set(in_document) | set(in_code) | set(in_tests))

  if "--table" in sys.argv[1:]:
    print("        document  asserts  tests")
    for n in numbers:
      print(f"I{n:<5} {in_document[n]:>9} {in_code[n]:>8} {in_tests[n]:>6}")
  for n in numbers:
    if in_document[n] > 1:
      errors.append(f"I{n} stands {in_document[n]} times in {DOCUMENT}")
    for counts, place in ((in_document, f"sentence in {DOCUMENT}"),
                          (in_code, "assert in core/ or preload/"), (in_tests, "test in test/")):
      if not counts[n]:
        errors.append(f"I{n} has no {place}")
  if numbers != list(range(1, len(numbers) + 1)):
    errors.append("the numbers are not I1, I2, … without a gap")
  if not numbers:
    errors.append("no invariant found")
  for line in errors:
    print(line)
  print(f"{len(numbers)} invariants, {sum(in_code.values())} asserts, "
        f"{sum(in_tests.values())} tests")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
