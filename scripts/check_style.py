#!/usr/bin/python3
"""Checks the budgets and bans that decay when nothing checks them.

Usage: check_style.py [--long]

In core/ and preload/: the length of files and functions, and no #if inside a function. In every
file of the repository: no notes to do something later, no paths of one machine. Every reason with
which the library ends a program is expected, word for word, by a test that runs such a program.
--long lists the longest functions.
"""

import pathlib
import re
import shutil
import subprocess
import sys

FILE_LINES_GOAL = 400
FILE_LINES_LIMIT = 450
FUNCTION_LINES_LIMIT = 60

# Files where a function may hold an #if: base.h sets the debug build and the compilers apart.
CONDITIONAL_FUNCTIONS = {"core/base.h"}

# Words are spelt in two halves, so that this file does not hold them.
LATER = re.compile(r"\b(" + "TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(wo" + r"rk|tmp/bash" + r"_jobs)/")

# Ends that no program can provoke from outside. Unit tests reach them.
INTERNAL_ENDS = {"die_of_check"}
MISUSE_TESTS = ["test/misuse/test_*.py", "test/preload/test_*.py"]

# Comments, strings, preprocessor lines and braces: all that tells functions from other blocks.
TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      |(?P<number>\b\d[\w']*)
      |(?P<directive>^[ \t]*\#(?:[^\n\\]|\\.)*)
      |(?P<brace>[{}])
      |(?P<semicolon>;)""",
    re.X | re.S | re.M,
)


def repository_files():
  """Every file that git keeps or would keep, or all files where there is no git checkout."""
  names = ""
  if shutil.which("git"):
    names = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"], capture_output=True, text=True, check=False).stdout
  if not names:
    files = (p for p in pathlib.Path(".").rglob("*") if p.parts[0] not in ("build", ".git"))
    return sorted(p for p in files if p.is_file())
  names = names.split("\0")
  return [p for p in map(pathlib.Path, sorted(set(names))) if p.is_file()]


def kind_of_block(head, enclosing):
  """Says what the brace behind `head`, the text since the last ; { or }, opens."""
  if "function" in enclosing:
    return "inner"
  head = re.sub(r"\btemplate\s*<[^{}]*?>|\balignas\s*\([^()]*\)|\bMINITC_\w+\s*(\([^()]*\))?"
                r"|\[\[.*?\]\]|\b(public|protected|private)\s*:", " ", head).strip()
  if re.match(r"(inline\s+)?namespace\b|extern$", head):
    return "namespace"
  if re.match(r"(typedef\s+)?(class|struct|union|enum)\b[^()]*$", head):
    return "type"
  flat = head
  while re.search(r"\([^()]*\)", flat):  # an = between parentheses is a default argument
    flat = re.sub(r"\([^()]*\)", " ", flat)
  if "=" in flat and "operator" not in flat:
    return "value"
  return "function" if ")" in head else "value"


def functions(text):
  """Yields (first line, last line, head) of each function, and (line, None, #if) inside one."""
  stack = []  # (kind, line of the head, head)
  head = ""
  last = 0

  def line_at(index):
    return text.count("\n", 0, index) + 1

  for match in TOKEN.finditer(text):
    head += text[last:match.start()]
    last = match.end()
    token = match.group()
    if match.lastgroup in ("comment", "string", "number"):
      head += " "
    elif match.lastgroup == "directive":
      if re.match(r"\s*#\s*(if|elif|else)", token) and any(s[0] == "function" for s in stack):
        yield line_at(match.start() + len(token) - len(token.lstrip())), None, token.strip()
      head = head if head.strip() else ""
    elif token == ";":
      head = ""
    elif token == "{":
      start = line_at(match.start() - len(head.lstrip()))
      stack.append((kind_of_block(head, [s[0] for s in stack]), start, " ".join(head.split())))
      head = ""
    else:
      if stack:
        kind, start, name = stack.pop()
        if kind == "function":
          yield start, line_at(match.start()), name
      head = ""


def check_sources(show_long):
  errors, notes, lengths = [], [], []
  sources = sorted(p for d in ("core", "preload") for p in pathlib.Path(d).glob("*.[hc]*"))
  if not sources:
    errors.append("no source found: run this from the top of the repository")
  for path in sources:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    if lines > FILE_LINES_LIMIT:
      errors.append(f"{path}: {lines} lines, the limit is {FILE_LINES_LIMIT}")
    elif lines > FILE_LINES_GOAL:
      notes.append(f"note: {path}: {lines} lines, the goal is {FILE_LINES_GOAL}")
    for first, last, name in functions(text):
      if last is None:
        if str(path) not in CONDITIONAL_FUNCTIONS:
          errors.append(f"{path}:{first}: {name} inside a function")
        continue
      lengths.append((last - first + 1, f"{path}:{first}: {name}"))
  for length, place in sorted(lengths, reverse=True):
    if length > FUNCTION_LINES_LIMIT:
      errors.append(f"{place}: {length} lines, the limit is {FUNCTION_LINES_LIMIT}")
  if show_long:
    notes += [f"{length:4} {place}" for length, place in sorted(lengths, reverse=True)[:20]]
  print(f"{len(sources)} sources, {len(lengths)} functions")
  return errors, notes


def check_words():
  errors = []
  for path in repository_files():
    try:
      text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
      continue
    for number, line in enumerate(text.splitlines(), 1):
      for pattern, what in ((LATER, "a note for later"), (MACHINE_PATHS, "a path of one machine")):
        found = pattern.search(line)
        if found:
          errors.append(f"{path}:{number}: {found.group()}: {what}")
  return errors


def join_literals(text):
  return re.sub(r'"\s*f?"', "", text)


def check_reasons():
  """Every piece of text in a function that ends the program stands in a test of misuse."""
  tests = [path for pattern in MISUSE_TESTS for path in pathlib.Path(".").glob(pattern)]
  expected = "\n".join(join_literals(path.read_text(encoding="utf-8")) for path in tests)
  errors, pieces = [], 0
  for path in sorted(p for d in ("core", "preload") for p in pathlib.Path(d).glob("*.cc")):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for first, last, head in functions(text):
      name = re.search(r"(\w+)\s*\(", head)
      if last is None or not name or name.group(1) in INTERNAL_ENDS:
        continue
      body = join_literals("\n".join(lines[first - 1:last]))
      if not re.search(r"\bdie\(\w", body):
        continue
      for piece in re.findall(r'"((?:[^"\\\n]|\\.)*)"', body):
        if re.search(r"[a-z]{3}", piece):
          pieces += 1
          if piece.strip() not in expected:
            errors.append(f'{path}:{first}: no test expects "{piece.strip()}"')
  if not pieces:
    errors.append("no reason for ending a program was found in core/ and preload/")
  print(f"{pieces} pieces of last words")
  return errors


def main():
  errors, notes = check_sources("--long" in sys.argv[1:])
  errors += check_words() + check_reasons()
  for line in notes + errors:
    print(line)
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
