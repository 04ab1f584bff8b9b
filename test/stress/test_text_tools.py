"""sort, grep, perl, bash and xz on libminitc print what they print without it."""
import random

import pytest

from side_by_side import HERE, require_same, require_same_files, run_both, tool

LINES = 250_000


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """A file of words and numbers, with lines of 5 bytes to 20 KB."""
  rng = random.Random(7)
  words = ["".join(rng.choices("abcdefghijklmnopqrst", k=rng.randrange(1, 14)))
           for _ in range(5000)]
  path = tmp_path_factory.mktemp("text") / "input"
  with open(path, "w", encoding="ascii") as out:
    for number in range(LINES):
      count = 2000 if number % 20_011 == 0 else rng.randrange(1, 12)
      print(rng.randrange(10 ** 6), *rng.choices(words, k=count), file=out)
  return path


@pytest.mark.parametrize("options", [
    [],
    ["-n", "-k1,1", "-s"],
    ["-k3", "-r", "-u", "--parallel=2"],
    ["-S", "2M", "--batch-size=4"],  # many temporary files, merged in rounds
], ids=" ".join)
def test_sort(lib, tmp_path, text, options):
  run_both(tmp_path, lib, [tool("sort", "coreutils"), *options, text])


@pytest.mark.parametrize("options", [
    ["-c", "-E", "(a|b)[c-e]+ .*([0-9])\\1|qq"],
    ["-n", "-o", "-w", "-i", "[aeiou][b-t][aeiou]"],
    ["-P", "(?<=a )b\\w*(?= \\w)"],
    ["-v", "-F", "-e", "aa", "-e", "b", "-e", "c", "-e", "de"],
], ids=" ".join)
def test_grep(lib, tmp_path, text, options):
  run_both(tmp_path, lib, [tool("grep", "grep"), *options, text])


def test_perl(lib, tmp_path):
  # The seed decides the order in which a hash is walked.
  run_both(tmp_path, lib, [tool("perl", "perl"), HERE / "work.pl"], PERL_HASH_SEED="0")


def test_bash(lib, tmp_path):
  run_both(tmp_path, lib, [tool("bash", "bash"), HERE / "work.bash"], processes=200)


def test_xz(lib, tmp_path, text):
  xz = tool("xz", "xz-utils")
  script = (f"{xz} -T2 -1 --block-size=1MiB -c '{text}' > packed.xz && "
            f"{xz} -T2 -dc packed.xz > unpacked")
  plain, preloaded = run_both(tmp_path, lib, [tool("sh", "dash"), "-c", script], together=False,
                              processes=3)
  require_same_files(plain, preloaded, "packed.xz")
  require_same("the round trip", text.read_bytes(), (preloaded.folder / "unpacked").read_bytes())
