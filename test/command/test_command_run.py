"""minitc run: the program that it becomes, on the library, or one line why not."""
import os
import re
import subprocess

import pytest

SHOW = "import os; print(os.environ.get('LD_PRELOAD'), os.getpid())"
MAPS = "print('mapped' if 'libminitc' in open('/proc/self/maps').read() else 'not mapped')"
PYTHON = "/usr/bin/python3"


def banner(text):
  """The options that the library says it has."""
  found = re.search(r"^libminitc: \d+\.\d+\.\d+ (.*)$", text, re.MULTILINE)
  return dict(word.split("=") for word in found.group(1).split())


@pytest.mark.parametrize("dashes", [[], ["--"]], ids=["bare", "dashes"])
def test_runs_on_the_library(minitc, dashes):
  result = minitc("run", *dashes, PYTHON, "-c", MAPS)
  assert (result.returncode, result.stdout, result.stderr) == (0, "mapped\n", "")


def test_every_option_of_the_library_has_a_flag(minitc, run_ok):
  """The library's own line names them all; so does --help, and no others."""
  options = banner(run_ok(["/bin/true"], {"MINITC_VERBOSE": "1"}).stderr)
  told = re.findall(r"\((MINITC_\w+)\)", minitc("run", "--help").stdout)
  assert len(options) >= 7
  assert sorted(told) == sorted(options)


def test_help_where_characters_are_missing(minitc):
  result = minitc("run", "--help", env={"PYTHONIOENCODING": "ascii"})
  assert (result.returncode, result.stderr) == (0, "") and "[--] CMD ?" in result.stdout


@pytest.mark.parametrize("flags, variable, value", [
    (["--stats"], "MINITC_STATS", "1"),
    (["--check-free"], "MINITC_CHECK_FREE", "1"),
    (["--thread-cache-total", "64K"], "MINITC_THREAD_CACHE_TOTAL", "65536"),
    (["--free-bound=3M"], "MINITC_FREE_BOUND", "3145728"),
    (["--on-bad-free", "ignore"], "MINITC_ON_BAD_FREE", "ignore"),
    (["--stats-interval", "10"], "MINITC_STATS_INTERVAL", "10"),
    (["--stats-file=/dev/null"], "MINITC_STATS_FILE", "/dev/null"),
    (["--keep-deepbind"], "MINITC_KEEP_DEEPBIND", "1")])
def test_option(minitc, flags, variable, value):
  result = minitc("run", "--verbose", *flags, "--", PYTHON, "-c", "")
  options = banner(result.stderr)
  assert result.returncode == 0 and options[variable] == value
  # Nothing else was touched.
  others = banner(minitc("run", "--verbose", PYTHON, "-c", "").stderr)
  assert {**others, variable: value} == options and others != options


def test_a_file_is_the_users_own(minitc, tmp_path):
  """Relative to the user's folder, and with no lines of the command's own trial."""
  result = minitc("run", "--stats-file", "lines.%p", "--", PYTHON, "-c", "import os; print(os.getpid())",
                  cwd=tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [f"lines.{result.stdout.strip()}"]


def test_options_of_the_environment_stay(minitc):
  result = minitc("run", "--verbose", "/bin/true", env={"MINITC_FREE_BOUND": "4M"})
  assert banner(result.stderr)["MINITC_FREE_BOUND"] == "4194304"


@pytest.mark.parametrize("before, separator", [("libm.so.6", ":"), ("libm.so.6 libz.so.1", " ")])
def test_ld_preload_is_kept_in_front(minitc, lib, before, separator):
  result = minitc("run", PYTHON, "-c", SHOW, env={"LD_PRELOAD": before})
  assert result.stdout.split()[0] == ":".join([*before.split(separator), lib])


def test_ld_preload_names_the_library_once(minitc, lib):
  result = minitc("run", PYTHON, "-c", SHOW, env={"LD_PRELOAD": lib})
  assert result.stdout.split()[0] == lib


def test_becomes_the_command(lib):
  """No process stays between the caller and the command: signals and the pid are its own."""
  command = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "minitc")
  with subprocess.Popen([command, "run", "--lib", lib, PYTHON, "-c", SHOW],
                        stdout=subprocess.PIPE, text=True) as process:
    out, _ = process.communicate(timeout=60)
  assert out.split() == [lib, str(process.pid)]


@pytest.mark.parametrize("code, status", [("raise SystemExit(7)", 7),
                                          ("import os; os.kill(os.getpid(), 9)", -9)])
def test_exit_status_is_the_commands(minitc, code, status):
  assert minitc("run", PYTHON, "-c", code).returncode == status


def test_arguments_pass_unchanged(minitc):
  words = ["--stats", "--", "-n", "", "a b", "$x", "--lib"]
  result = minitc("run", "--", PYTHON, "-c", "import sys; print(sys.argv[1:])", *words)
  assert result.stdout == f"{words}\n"


def test_signals_are_as_without_it(minitc, run_plain):
  """Also those that Python ignores: a command ends when nobody reads what it writes."""
  words = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]
  assert minitc("run", *words).stdout == run_plain(words).stdout != ""


def test_closed_stdout_is_the_commands_affair(lib, run_plain):
  command = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "minitc")
  result = run_plain(["sh", "-c", '"$@" >&-', "sh", command, "run", "--lib", lib, "sh", "-c",
                      "exit 3"])
  assert (result.returncode, result.stderr) == (3, "")


def test_what_cannot_work_is_not_started(minitc, compiled):
  program = compiled("static_talker", "-static", source='int main() { puts("ran"); return 0; }')
  result = minitc("run", program)
  assert (result.returncode, result.stdout) == (125, "")
  assert result.stderr == f"minitc: {program}: linked statically: no loader reads LD_PRELOAD\n"
  assert minitc("run", "--force", program).stdout == "ran\n"


@pytest.mark.parametrize("words, message", [
    (["--bogus", "true"], "minitc run: --bogus: no such option"),
    (["--bogus"], "minitc run: --bogus: no such option"),
    (["--stat", "true"], "minitc run: --stat: no such option"),
    ([], "minitc run: no command is given"),
    (["--"], "minitc run: no command is given"),
    ([""], "minitc run: no command is given"),
    (["--free-bound"], "minitc run: argument --free-bound: expected one argument"),
    (["--free-bound", "lots", "true"],
     "minitc: libminitc: MINITC_FREE_BOUND=lots: not a number, ignored"),
    (["--on-bad-free", "hope", "true"],
     "minitc: libminitc: MINITC_ON_BAD_FREE=hope: not one of abort|ignore, ignored"),
    (["--lib", "/nowhere/libminitc.so", "true"],
     "minitc: /nowhere/libminitc.so is missing: run make, or name the library with --lib"),
    (["--lib", "/usr/bin/env", "true"], "minitc: ERROR: ld.so: object '/usr/bin/env' from "
                                        "LD_PRELOAD cannot be preloaded"),
    (["--lib", "/usr/lib/x86_64-linux-gnu/libz.so.1", "true"],
     "libz.so.1: no libminitc, or one that does not start: status 0")])
def test_bad_input(minitc, words, message):
  result = minitc("run", *words)
  assert (result.returncode, result.stdout) == (125, "")
  assert message in result.stderr.splitlines()[-1]


def test_library_with_a_blank_in_its_path(minitc, lib, tmp_path):
  other = tmp_path / "lib minitc.so"
  other.symlink_to(lib)
  result = minitc("run", "--lib", other, "true")
  assert (result.returncode, result.stderr) == (
      125, f"minitc: {other}: LD_PRELOAD takes no path with a blank or a colon in it\n")


def test_option_of_the_environment_that_does_not_exist(minitc):
  result = minitc("run", "true", env={"MINITC_STAT": "1"})
  assert (result.returncode, result.stderr) == (
      125, "minitc: libminitc: MINITC_STAT: unknown option, ignored\n")


def test_status_of_what_cannot_be_started(minitc, tmp_path):
  result = minitc("run", "no-such-program")
  assert (result.returncode, result.stderr) == (
      127, "minitc: no-such-program: No such file or directory\n")
  plain = tmp_path / "plain"
  plain.write_text("")
  result = minitc("run", plain)
  assert (result.returncode, result.stderr) == (126, f"minitc: {plain}: Permission denied\n")
