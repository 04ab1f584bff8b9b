"""The names of the cases that a program of this folder holds, read from its source."""
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent
ROW = re.compile(r'\{"(\w+)", *\w+\}')


def cases_of(source):
  names = ROW.findall((FOLDER / source).read_text())
  assert names, f"{source} has no table of cases"
  return names
