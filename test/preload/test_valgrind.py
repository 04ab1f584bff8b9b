"""valgrind's tools run programs on the library; memcheck finds what it finds without it."""
import pytest

MISTAKE = 99  # exit status when memcheck has something to report
REPORTS = {"leak": "1,234 bytes in 1 blocks are definitely lost", "overrun": "Invalid write of size 1",
           "use_after_free": "Invalid read of size 1"}
# What memcheck replaces: malloc wherever it is, which is also what the first two say, or only libc's,
# so that the program keeps ours.
REPLACED = {"default": [], "named": ["--soname-synonyms=somalloc=*minitc*"],
            "ours_stays": ["--soname-synonyms=somalloc=nouserintercepts"]}


@pytest.fixture
def under_valgrind(run_preloaded, build):
  """Runs a case of observed.c under valgrind with the given options."""
  def run(case, *options, env=None):
    return run_preloaded(["valgrind", "-q", f"--error-exitcode={MISTAKE}", *options,
                          build / "preload" / "observed", case], env, timeout=300)
  return run


@pytest.mark.parametrize("replaced", REPLACED)
def test_nothing_to_report(under_valgrind, replaced):
  result = under_valgrind("no_mistake", "--leak-check=full", *REPLACED[replaced])
  assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("replaced", ["default", "named"])
@pytest.mark.parametrize("mistake", REPORTS)
def test_mistake_is_reported(under_valgrind, mistake, replaced):
  result = under_valgrind(mistake, "--leak-check=full", *REPLACED[replaced])
  assert (result.returncode, result.stdout) == (MISTAKE, "done\n")
  assert REPORTS[mistake] in result.stderr and "observed.c" in result.stderr


@pytest.mark.parametrize("tool", ["callgrind", "massif", "helgrind"])
def test_other_tools(under_valgrind, tmp_path, tool):
  options = [] if tool == "helgrind" else [f"--{tool}-out-file={tmp_path / 'out'}"]
  result = under_valgrind("no_mistake", f"--tool={tool}", *options)
  assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
  if tool == "callgrind":  # the program was on the library, not on a malloc of the tool's
    assert "libminitc.so" in (tmp_path / "out").read_text()
