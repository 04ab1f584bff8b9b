"""What make install puts in place works from there; what is written of the command is so."""
import os
import pathlib
import pty
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PARTS = ["run", "check", "compare", "stats", "top", "report"]


@pytest.fixture(scope="module")
def installed(lib, tmp_path_factory):
  """The folder that stands for /opt/minitc."""
  folder = tmp_path_factory.mktemp("root")
  subprocess.run(["make", "-C", ROOT, "-s", "install", f"DESTDIR={folder}", "PREFIX=/opt/minitc",
                  f"LIB={lib}"], check=True, stdout=subprocess.DEVNULL)
  return folder / "opt" / "minitc"


@pytest.mark.parametrize("platform", ["aarch64", "musl"])
def test_another_platform_has_its_own_library(tmp_path, platform):
  """What its tests build does not take the place of what make install copies."""
  environment = {name: value for name, value in os.environ.items()
                 if not name.startswith("MAKE") and name not in ("BUILD", "LIB")}
  plan = subprocess.run(["make", "-C", ROOT, "-n", "-B", f"BUILD={tmp_path}", f"test-{platform}"],
                        env=environment, capture_output=True, text=True, check=True).stdout
  linked = re.findall(r"-shared .* -o (\S*libminitc\.so)$", plan, re.MULTILINE)
  assert linked == [f"{tmp_path}/{platform}/libminitc.so"]


def test_files(installed):
  names = {str(path.relative_to(installed)) for path in installed.rglob("*")
           if path.is_file() and "__pycache__" not in path.parts}
  assert {name for name in names if not name.startswith("lib/minitc/")} == {
      "bin/minitc", "include/minitc.h", "include/minitc_pool.hpp", "lib/libminitc.so", "share/man/man1/minitc.1",
      "share/man/man3/libminitc.3", "share/bash-completion/completions/minitc"}
  assert not (installed / "bin" / "minitc").readlink().is_absolute()


def test_works_from_there(installed, run_plain):
  """Moved elsewhere, too: nothing in it knows where it is, and nothing of the checkout is used."""
  command = installed / "bin" / "minitc"
  mine = installed / "lib" / "libminitc.so"
  version = re.search(r'MINITC_VERSION "(.*)"', (ROOT / "preload" / "minitc.h").read_text()).group(1)
  result = run_plain([command, "--version"])
  assert (result.returncode, result.stdout) == (0, f"minitc {version} ({mine})\n")
  result = run_plain([command, "run", "--", "sh", "-c", "echo $LD_PRELOAD"], cwd="/")
  assert result.stdout == f"{mine}\n"
  assert run_plain([command, "check", "redis-server"], cwd="/").returncode == 0
  result = run_plain([command, "compare", "-n", "1", "--with", "glibc", "/bin/true"], cwd="/")
  assert result.returncode == 0 and "minitc divided by glibc" in result.stdout


@pytest.mark.parametrize("module, package", [("elftools", "python3-pyelftools"),
                                             ("rich", "python3-rich")])
def test_says_what_is_missing(installed, run_plain, tmp_path, module, package):
  broken = tmp_path / module
  broken.mkdir()
  (broken / "__init__.py").write_text(f"raise ModuleNotFoundError(name='{module}')")
  result = run_plain([installed / "bin" / "minitc", "compare", "-n", "1", "/bin/true"],
                     {"PYTHONPATH": str(tmp_path)})
  assert (result.returncode, result.stderr) == (
      2, f"minitc: {package} is missing: apt-get install {package}\n")


def options_of(run_plain, part):
  text = run_plain([ROOT / "scripts" / "minitc", part, "--help"]).stdout
  return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text.partition("options:")[2])) - {"-h"}


def test_manual_page(run_plain):
  if shutil.which("man") is None:
    pytest.skip("man is not installed")
  page = run_plain(["man", "--warnings", "-E", "ascii", "-P", "cat", "-l", ROOT / "docs/minitc.1"],
                   {"MANWIDTH": "78", "MANROFFOPT": "-rHY=0"})
  assert (page.returncode, page.stderr) == (0, "")
  named = set(re.findall(r"^ +(--?[a-z][a-z-]*)", page.stdout, re.MULTILINE))
  told = set().union(*(options_of(run_plain, part) for part in PARTS))
  assert told and told <= named
  assert named - told <= {"--version"}


def complete(run_plain, *words):
  """What the shell offers when the last word is completed."""
  code = ('source "$0"; COMP_WORDS=(minitc "$@"); COMP_CWORD=$#; _minitc; '
          'printf "%s\\n" "${COMPREPLY[@]}"')
  script = ROOT / "scripts" / "minitc.bash"
  result = run_plain(["bash", "-c", f'minitc() {{ "{script.with_suffix("")}" "$@"; }}; {code}',
                      script, *words])
  assert (result.returncode, result.stderr) == (0, "")
  return result.stdout.split()


@pytest.mark.parametrize("part", PARTS)
def test_completion_offers_every_option(run_plain, part):
  assert set(complete(run_plain, part, "-")) - {"-h"} == options_of(run_plain, part)


@pytest.mark.parametrize("typed, words", [
    ("stats my", ["stats", "my file"]), ("top my\\ f", ["top", "my file"]),
    ("run --stats-file my", ["run", "--stats-file", "my file"]),
    ("run ./a", ["run", "./a folder/"]), ("run ls my", ["run", "ls", "my file"])])
def test_completion_of_names_with_blanks(tmp_path, typed, words):
  """By bash itself, on a terminal."""
  (tmp_path / "my file").touch()
  (tmp_path / "a folder").mkdir()
  ours, theirs = pty.openpty()
  script = ROOT / "scripts" / "minitc.bash"
  with subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs,
                        stderr=theirs, cwd=tmp_path, start_new_session=True,
                        env={"PATH": os.environ["PATH"], "TERM": "dumb", "HISTFILE": ""}) as bash:
    os.close(theirs)
    os.write(ours, f"minitc() {{ [ $2 = --help ] && exec {script.with_suffix('')} $@; "
                   f"printf '<%s>' \"$@\" >out; }}\n. {script}\nminitc {typed}\t\nexit\n".encode())
    try:
      while os.read(ours, 4096):
        pass
    except OSError:  # the terminal's other end is closed
      pass
    bash.wait(40)
  os.close(ours)
  assert (tmp_path / "out").read_text() == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("words, expected", [
    (["co"], ["compare"]), (["run", "--ver"], ["--verbose"]), (["run", "--on-bad-free", "i"], ["ignore"]),
    (["compare", "--with", "glibc,je"], ["glibc,jemalloc"]), (["nonsense", "x"], []),
    (["compare", "-n", "3", "--with", "glibc", "redis-serv"], ["redis-server"]),
    (["run", "--stats", "--", "redis-serv"], ["redis-server"]),
    (["run", "redis-server", "/etc/passw"], ["/etc/passwd"]), (["check", "1"], ["1"])])
def test_completion(run_plain, words, expected):
  found = complete(run_plain, *words)
  assert set(expected) <= set(found) if expected else not found
  if len(expected) == 1 and words[-1] not in ("1", "/etc/passw"):
    assert set(found) == set(expected)
