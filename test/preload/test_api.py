"""minitc.h: what the library offers beside the standard's functions."""
import json
import re

import pytest

from cases import FOLDER, cases_of

HEADER = (FOLDER.parent.parent / "preload" / "minitc.h").read_text(encoding="utf-8")
EXPORTS = (FOLDER.parent.parent / "preload" / "exports.map").read_text(encoding="utf-8")
MANUAL = (FOLDER.parent.parent / "docs" / "libminitc.3").read_text(encoding="utf-8")
VERSION = re.search(r'#define MINITC_VERSION "(.*)"', HEADER)[1]
OPTIONS = {"options": {"MINITC_THREAD_CACHE_TOTAL": "3M", "MINITC_ON_BAD_FREE": "ignore",
                       "MINITC_STATS_FILE": "/dev/null"}}


@pytest.mark.parametrize("case", [case for case in cases_of("api.c") if case != "json"])
def test_api(run_ok, build, case):
  result = run_ok([build / "preload" / "api", case], OPTIONS.get(case))
  assert (result.stdout, result.stderr) == ("", "")


def test_json_is_a_line_of_the_file(run_ok, build, tmp_path):
  path = tmp_path / "lines"
  text = run_ok([build / "preload" / "api", "json"], {"MINITC_STATS_FILE": str(path)}).stdout
  told = json.loads(text)
  (written,) = [line for line in map(json.loads, path.read_text().splitlines())
                if line["event"] == "exit"]
  assert list(told) == list(written) and told["event"] == "call" and told["pid"] == written["pid"]
  assert told["large_count"] == 1 and told["options"] == written["options"]
  assert [row["live"] for row in told["classes"] if row["bytes"] == 3072] == [1]


@pytest.mark.parametrize("program", ["weak_use", "weak_use_cxx"])
def test_weak_symbols(run_plain, run_ok, build, program):
  """The example: it runs with and without the library, and takes no harm."""
  path = build / "preload" / program
  plain = run_plain([path])
  assert (plain.returncode, plain.stdout, plain.stderr) == (0, "without libminitc\n", "")
  assert run_ok([path]).stdout == f"libminitc {VERSION}: 10 MiB in 1 blocks\n"


def test_every_function_is_exported_and_in_the_manual():
  names = set(re.findall(r"^MINITC_FUNCTION [^;]*?\b(minitc_\w+)\(", HEADER, re.MULTILINE))
  assert len(names) >= 9
  assert names == set(re.findall(r"^ +(minitc_\w+);", EXPORTS, re.MULTILINE))
  assert names <= set(re.findall(r"minitc_\w+", MANUAL))
