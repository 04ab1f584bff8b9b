"""git: clone, gc and fsck of a repository, all in many processes and (for deltas) threads."""
import random

from side_by_side import (ROOT, environment, finish, require_same, run_both, start, tail, tool)

COMMITS = 400

# Run in an empty folder with the repository's address as $1. What may differ from run to run (how
# objects were packed) stays out of the output; what objects there are is all in it.
SCRIPT = r"""
set -e
# A remote's stderr comes back line by line as "remote: ..."; the library's greeting is in it.
git clone -q "$1" copy 2>clone-errors || { cat clone-errors >&2; exit 1; }
grep -v libminitc clone-errors || true
cd copy
git rev-parse HEAD
first=$(git rev-list --max-parents=0 HEAD | tail -n 1)
git log --all --stat --format='%H %an %at %s%n%b' | sha256sum
git rev-list --objects --all | sort | sha256sum
git -c pack.threads=2 -c pack.windowMemory=4m repack -adq --window=50 --depth=50 -f
git -c pack.threads=2 gc -q --prune=now
git fsck --full --strict --no-progress
git count-objects -v | grep -E '^(count|in-pack|packs|garbage):'
git cat-file --batch-all-objects --batch --unordered --buffer | wc -c
git cat-file --batch-all-objects --batch --buffer | sha256sum
git archive --format=tar HEAD | sha256sum
main=$(git rev-parse HEAD)
git checkout -q -b other "$first"
echo changed > new-file
git add new-file
git commit -q -m other
git merge -q --no-edit -m merge "$main"
git diff "$first" | sha256sum
git blame -s HEAD -- $(git ls-files | head -n 3 | tail -n 1) | sha256sum
git rev-parse "HEAD^{tree}"
"""


def fast_import_stream():
  """Commits over text files that grow and change, and some binary ones that do not compress."""
  rng = random.Random(20)
  files = {}
  out = []
  for number in range(1, COMMITS + 1):
    message = f"change {number}\n\n{'why ' * rng.randrange(40)}\n".encode()
    out.append(b"commit refs/heads/main\n"
               b"committer Some One <one@example.org> %d +0000\n" % (1_600_000_000 + 60 * number))
    out.append(b"data %d\n%s" % (len(message), message))
    for _ in range(rng.randrange(1, 6)):
      name = f"dir{rng.randrange(12)}/sub{rng.randrange(4)}/file{rng.randrange(12)}.txt"
      lines = files.setdefault(name, [])
      for _ in range(rng.randrange(1, 60)):
        at = rng.randrange(len(lines) + 1)
        lines[at:at + rng.randrange(3)] = [f"{rng.getrandbits(80):x} line {number}"]
      content = ("\n".join(lines) + "\n").encode()
      out.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(content), content))
    if number % 20 == 0:
      content = rng.randbytes(rng.randrange(1, 400_000))
      out.append(b"M 100644 inline blob%d.bin\ndata %d\n%s\n" % (number % 7, len(content), content))
  return b"".join(out)


def settings(tmp_path):
  """No configuration from the machine: only that a checkout owned by someone else may be read."""
  config = tmp_path / "gitconfig"
  config.write_text("[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n"
                    "[user]\n\tname = A\n\temail = a@example.org\n[gc]\n\tautoDetach = false\n")
  return {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1",
          "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
          "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z"}


def clone_gc_fsck(lib, tmp_path, repository):
  script = tmp_path / "script.sh"
  script.write_text(SCRIPT)
  argv = [tool("sh", "dash"), script, f"file://{repository}"]
  tool("git", "git")
  _, preloaded = run_both(tmp_path, lib, argv, processes=30, **settings(tmp_path))
  assert len(preloaded.out.splitlines()) == 13, preloaded.out


def own_history(env, folder):
  """This project's checkout, or None in a source archive, which has no history to clone."""
  outcome = finish(start([tool("git", "git"), "-C", ROOT, "rev-parse", "--show-toplevel", "HEAD"],
                         env, folder), folder, 60)
  found = outcome.status == 0 and outcome.out.decode().splitlines()[0] == str(ROOT)
  return ROOT if found else None


def test_clone_gc_and_fsck(lib, tmp_path):
  stream = tmp_path / "stream"
  stream.write_bytes(fast_import_stream())
  git = tool("git", "git")
  heads = {}
  for name, library in (("source", None), ("imported", lib)):
    folder = tmp_path / f"{name}.git"
    env = environment(tmp_path, library, **settings(tmp_path))
    for command in (["init", "-q", "--bare", "."], ["fast-import", "--quiet"],
                    ["rev-parse", "main^{commit}"]):
      stdin = stream if command[0] == "fast-import" else None
      outcome = finish(start([git, *command], env, folder, stdin), folder, 60)
      assert outcome.status == 0, f"git {command}: {tail(outcome.err)}"
    heads[name] = outcome.out
  require_same("the head that git fast-import wrote", heads["source"], heads["imported"])
  clone_gc_fsck(lib, tmp_path, tmp_path / "source.git")
  own = own_history(environment(tmp_path, **settings(tmp_path)), tmp_path / "probe")
  if own is not None:
    (tmp_path / "own").mkdir()
    clone_gc_fsck(lib, tmp_path / "own", own)
