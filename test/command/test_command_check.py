"""minitc check: what it says of a program or a process, and that this is so."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import pytest

NOBODY = 65534
AS_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
JEMALLOC = "libjemalloc.so.2"
SLEEP = ["/bin/sleep", "60"]
OWN = """
#include <stddef.h>
static char memory[1 << 20]; static size_t used;
%s void* malloc(size_t n) { used += (n + 31) / 16 * 16; return memory + used - (n + 15) / 16 * 16; }
%s void free(void* p) {}
int main() { free(malloc(10)); return 0; }
"""


def verdict(result):
  """The first line's words behind the name, without the notes."""
  assert result.stderr == ""
  return result.stdout.splitlines()[0].partition(": ")[2]


def notes(result):
  return [line.strip() for line in result.stdout.splitlines()[1:]]


def runs_on_the_library(run_preloaded, program, *words, **kw):
  """What happens in fact."""
  result = run_preloaded([program, *words], {"MINITC_VERBOSE": "1"}, **kw)
  return "libminitc: 0" in result.stderr


@pytest.mark.parametrize("program", ["redis-server", "/usr/bin/python3", "git", "perl", "sqlite3",
                                     "gdb", "bash", "/bin/true", "php"])
def test_real_programs_work(minitc, run_preloaded, program):
  if shutil.which(program) is None:
    pytest.skip(f"{program} is not installed")
  result = minitc("check", program)
  assert (result.returncode, verdict(result)) == (0, "works")
  assert runs_on_the_library(run_preloaded, program, "--version")


def test_an_allocator_that_is_linked_in_shared_is_idle(minitc):
  result = minitc("check", "redis-server")
  assert any(JEMALLOC in note and note.endswith("will be idle") for note in notes(result))
  assert not any("idle" in note for note in notes(minitc("check", "git")))


def patched(path, source, *changes):
  """A copy of a program with some bytes changed: (offset or the bytes that stand there, new ones)."""
  content = bytearray(pathlib.Path(source).read_bytes())
  for place, new in changes:
    at = content.index(place) if isinstance(place, bytes) else place
    content[at:at + len(new)] = new
  path.write_bytes(content)
  path.chmod(0o755)
  return path


def for_32_bits(path):
  """The least that is an ELF file for i386 with a loader."""
  name = b"/lib/ld-linux.so.2\0"
  header = (b"\x7fELF\x01\x01\x01" + bytes(9) + b"\2\0\3\0\1\0\0\0" + bytes(4)
            + (52).to_bytes(4, "little") + bytes(8) + b"\x34\0\x20\0\1\0\x28\0\0\0\0\0")
  segment = b"".join(n.to_bytes(4, "little") for n in (3, 84, 84, 84, len(name), len(name), 4, 1))
  path.write_bytes(header + segment + name)
  path.chmod(0o755)
  return path


LOADER = b"/lib64/ld-linux-x86-64.so.2\0"
CANNOT = {
    "static": ("linked statically: no loader reads LD_PRELOAD",
               lambda compiled, path: compiled("static", "-static")),
    "static_pie": ("linked statically: no loader reads LD_PRELOAD",
                   lambda compiled, path: compiled("static_pie", "-static-pie")),
    "32_bits": ("a program for 32 bits; the library is for 64",
                lambda compiled, path: for_32_bits(path)),
    "aarch64": ("a program for AArch64; the library is for x64",
                lambda compiled, path: patched(path, "/bin/true", (18, b"\xb7\0"))),
    "musl": ("linked with musl; the library is for glibc",
             lambda compiled, path: patched(path, "/bin/true", (
                 LOADER, b"/lib/ld-musl-x86_64.so.1\0\0\0\0"))),
    "no_loader": ("its loader /lib64/ld-linux-x86-65.so.2 is missing",
                  lambda compiled, path: patched(path, "/bin/true", (
                      LOADER, LOADER.replace(b"86-64", b"86-65")))),
    "library_missing": ("error while loading shared libraries: libc.so.7: cannot open shared object "
                        "file: No such file or directory",
                        lambda compiled, path: patched(path, "/bin/true",
                                                       (b"libc.so.6", b"libc.so.7"))),
    "own_malloc": ("it defines malloc itself, and what a program defines comes before LD_PRELOAD",
                   lambda compiled, path: compiled("own", source=OWN % ("", ""))),
    "hidden_malloc": ("an allocator is linked in whose malloc is not exported: pointers of two "
                      "allocators would meet", lambda compiled, path: compiled(
                          "hidden", source=OWN % (("__attribute__((visibility(\"hidden\")))",) * 2))),
    "libasan": ("libasan.so.8 is loaded: AddressSanitizer's malloc has to be first",
                lambda compiled, path: compiled("libasan", "-fsanitize=address")),
    "libtsan": ("libtsan.so.2 is loaded: ThreadSanitizer's malloc has to be first",
                lambda compiled, path: compiled("libtsan", "-fsanitize=thread")),
    "asan_inside": ("built with AddressSanitizer, whose malloc has to be first",
                    lambda compiled, path: compiled("asan", "-fsanitize=address",
                                                    "-static-libasan")),
}


@pytest.mark.parametrize("kind", CANNOT)
def test_cannot_work(minitc, run_preloaded, compiled, tmp_path, kind):
  reason, make = CANNOT[kind]
  program = make(compiled, tmp_path / kind)
  result = minitc("check", program)
  assert (result.returncode, verdict(result)) == (1, reason)
  if kind in ("static", "static_pie"):  # of the others the library may well start, and be idle
    assert not runs_on_the_library(run_preloaded, program)


def test_a_program_that_allocates_under_another_name(minitc, compiled):
  program = compiled("prefixed", source=(OWN % ("", "")).replace("malloc", "mi_malloc").replace(
      "free", "mi_free"))
  result = minitc("check", program)
  assert result.returncode == 0
  assert any(note.startswith("mimalloc seems to be compiled in") for note in notes(result))


# --- Raised rights ---------------------------------------------------------------------------------

@pytest.fixture
def copy_of_true(tmp_path_factory):
  """A copy of /bin/true that everybody may run."""
  if os.geteuid() != 0:
    pytest.skip("only root can give a program to somebody else")
  folder = pathlib.Path("/tmp") / f"minitc-check-{os.getpid()}"
  folder.mkdir(mode=0o755)
  yield shutil.copy("/bin/true", folder / "true")
  shutil.rmtree(folder)


RIGHTS = "a program with raised rights ignores LD_PRELOAD"
OTHERS = "when another user starts it, it ignores LD_PRELOAD"


@pytest.mark.parametrize("mode, what", [(0o4755, "setuid"), (0o2755, "setgid")])
def test_raised_rights(minitc, run_preloaded, copy_of_true, mode, what):
  os.chown(copy_of_true, NOBODY, NOBODY)
  copy_of_true.chmod(mode)
  if os.statvfs(copy_of_true).f_flag & os.ST_NOSUID:
    pytest.skip("the file system is mounted nosuid")
  result = minitc("check", copy_of_true)
  assert (result.returncode, verdict(result)) == (1, f"{what}: {RIGHTS}")
  assert not runs_on_the_library(run_preloaded, copy_of_true)
  # To its owner it gives nothing.
  os.chown(copy_of_true, 0, 0)
  copy_of_true.chmod(mode)
  result = minitc("check", copy_of_true)
  assert (result.returncode, notes(result)) == (0, [f"{what}: {OTHERS}"])
  assert runs_on_the_library(run_preloaded, copy_of_true)


def test_the_groups_lock_bit_is_no_right(minitc, copy_of_true):
  os.chown(copy_of_true, 0, NOBODY)
  copy_of_true.chmod(0o2745)
  assert minitc("check", copy_of_true).returncode == 0


def test_file_capabilities(minitc, run_plain, copy_of_true, lib):
  done = subprocess.run(["setcap", "cap_net_bind_service=ep", copy_of_true], capture_output=True,
                        text=True, check=False)
  if done.returncode != 0:
    pytest.skip(done.stderr.strip())
  result = minitc("check", copy_of_true)
  assert (result.returncode, notes(result)) == (0, [f"file capabilities: {OTHERS}"])
  # As nobody, who may not be able to read this checkout.
  scripts = copy_of_true.parent / "scripts"
  shutil.copytree(pathlib.Path(__file__).parents[2] / "scripts", scripts)
  shutil.copy(lib, copy_of_true.parent / "libminitc.so")
  result = run_plain(["/usr/bin/python3", scripts / "minitc", "check", copy_of_true], **AS_NOBODY)
  assert (result.returncode, verdict(result)) == (1, f"file capabilities: {RIGHTS}")


# --- Scripts and what is known by name -------------------------------------------------------------

def script(path, text):
  path.write_text(text)
  path.chmod(0o755)
  return path


def test_script_of_python(minitc, tmp_path):
  path = script(tmp_path / "work", "#!/usr/bin/env python3\n")
  result = minitc("check", path, env={"PATH": "/usr/bin:/bin"})
  assert (result.returncode, verdict(result)) == (0, "works")
  assert notes(result) == [f"{path} is a script, run by /usr/bin/python3"]


def test_script_of_a_shell_says_what_it_does(minitc, tmp_path):
  path = script(tmp_path / "wrapper", "#!/bin/sh\n# LD_PRELOAD\nunset LD_PRELOAD\n"
                                      'exec >log\n  exec /opt/real "$@"\n')
  result = minitc("check", path)
  assert result.returncode == 0
  assert notes(result) == [
      f"{path} is a script, run by /bin/sh",
      "what the shell starts is on the library too, and is not checked here",
      "line 3 changes or reads LD_PRELOAD: unset LD_PRELOAD",
      'line 5 ends the script by exec /opt/real "$@"']


def test_script_of_a_static_interpreter(minitc, compiled, tmp_path):
  inner = script(tmp_path / "inner", f"#!{compiled('static', '-static')} -x\n")
  result = minitc("check", script(tmp_path / "outer", f"#! {inner}\n"))
  assert (result.returncode, verdict(result)) == (
      1, "linked statically: no loader reads LD_PRELOAD")


@pytest.mark.parametrize("line, interpreter", [
    ("#!/bin/sh\t-e", "/bin/sh"), ("#!\t/bin/sh \t", "/bin/sh"),
    ("#!/usr/bin/env -S\tsh -e", "/usr/bin/sh"), ("#!/usr/bin/env it's", "/usr/bin/env")])
def test_first_line_is_divided_as_the_kernel_does(minitc, tmp_path, line, interpreter):
  path = script(tmp_path / "work", f"{line}\n")
  result = minitc("check", path, env={"PATH": "/usr/bin:/bin"})
  assert (result.returncode, verdict(result), result.stderr) == (0, "works", "")
  assert notes(result)[0] == f"{path} is a script, run by {interpreter}"


@pytest.mark.parametrize("text, reason", [
    ("#!/bin/sh\r\n", "{} is a script, and there is no /bin/sh^M to run it"),
    ("#!/no/interpreter\n", "{} is a script, and there is no /no/interpreter to run it"),
    ("#!\n", "{} is a script, and there is no interpreter to run it"),
    ("echo\n", "{} is neither an ELF file nor a script that begins with #!"),
    ("#!{}\n", "{}: scripts that run scripts, more than 5 deep")])
def test_script_that_cannot_be_run(minitc, tmp_path, text, reason):
  path = tmp_path / "broken"
  result = minitc("check", script(path, text.format(path)))
  assert (result.returncode, verdict(result)) == (1, reason.format(path))


@pytest.mark.parametrize("name, word", [("php8.2", "RTLD_DEEPBIND"), ("docker", "container"),
                                        ("systemctl", "unit"), ("valgrind", "soname-synonyms")])
def test_known_by_name(minitc, tmp_path, name, word):
  shutil.copy("/bin/true", tmp_path / name)
  result = minitc("check", tmp_path / name)
  assert result.returncode == 0 and [word in note for note in notes(result)] == [True]


# --- Other libraries in LD_PRELOAD -----------------------------------------------------------------

def test_another_allocator_first(minitc):
  result = minitc("check", "/bin/true", env={"LD_PRELOAD": JEMALLOC})
  assert result.returncode == 1
  assert verdict(result).endswith(f"{JEMALLOC} comes first in LD_PRELOAD and has a malloc of its own")


def test_a_library_that_passes_calls_on(minitc, tmp_path):
  shim = tmp_path / "libshim.so"
  subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", shim], text=True, check=True,
                 input="extern void* __libc_malloc(unsigned long);\n"
                       "void* malloc(unsigned long n) { return __libc_malloc(n); }\n")
  result = minitc("check", "/bin/true", env={"LD_PRELOAD": str(shim)})
  assert (result.returncode, notes(result)) == (
      0, [f"{shim} comes first in LD_PRELOAD, and sees each call before the library"])


def test_the_loaders_complaint(minitc):
  result = minitc("check", "/bin/true", env={"LD_PRELOAD": "/nowhere.so"})
  assert result.returncode == 0
  assert "'/nowhere.so' from LD_PRELOAD cannot be preloaded" in notes(result)[0]


# --- Processes -------------------------------------------------------------------------------------

def state_of(pid):
  return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@contextlib.contextmanager
def running(words, env=None, ready=None):
  """A process that is past its start: it sleeps, or ready() says so."""
  env = {"PATH": os.environ["PATH"], "LC_ALL": "C", **(env or {})}
  with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                        stdin=subprocess.DEVNULL) as process:
    try:
      ready = ready or (lambda: state_of(process.pid) == "S")
      deadline = time.monotonic() + 60
      while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
      yield process
    finally:
      process.kill()


@pytest.mark.parametrize("preload, status, text", [
    ("{lib}", 0, "works"), ("libz.so.1:{lib}", 0, "works"),
    (None, 1, "it was started without LD_PRELOAD, or its environment is overwritten"),
    ("libz.so.1", 1, "it was started with LD_PRELOAD=libz.so.1, without the library"),
    ("/nowhere/libminitc.so", 1, "LD_PRELOAD names /nowhere/libminitc.so, which is not in its file "
                                 "system"),
    ("{broken}", 1, "LD_PRELOAD names {broken}, which the loader did not load: its stderr says why"),
    (JEMALLOC + ":{lib}", 1, "{lib} is loaded and idle: malloc is that of {jemalloc}")])
def test_process(minitc, lib, tmp_path, preload, status, text):
  broken = tmp_path / "libminitc.so"
  broken.write_bytes(b"\x7fELF")
  jemalloc = os.path.realpath(f"/usr/lib/x86_64-linux-gnu/{JEMALLOC}")
  env = {} if preload is None else {"LD_PRELOAD": preload.format(lib=lib, broken=broken)}
  with running(SLEEP, env) as process:
    result = minitc("check", str(process.pid))
  assert (result.returncode, verdict(result)) == (
      status, text.format(lib=lib, broken=broken, jemalloc=jemalloc))
  assert status or notes(result) == [f"malloc is that of {lib}"]


@pytest.mark.parametrize("preload", [True, False])
def test_redis(minitc, lib, tmp_path, preload):
  """It is linked with another allocator, and overwrites its environment with its title."""
  socket = tmp_path / "socket"
  words = ["redis-server", "--port", "0", "--save", "", "--unixsocket", socket, "--dir", tmp_path]
  with running(words, {"LD_PRELOAD": lib} if preload else {}, socket.exists) as process:
    result = minitc("check", str(process.pid))
  assert result.returncode == (0 if preload else 1)
  assert not preload or any(JEMALLOC in note and "idle" in note for note in notes(result))


def test_process_of_a_static_program(minitc, lib, compiled):
  program = compiled("static_sleep", "-static", source="int main() { pause(); return 0; }")
  with running([program], {"LD_PRELOAD": lib}) as process:
    result = minitc("check", str(process.pid))
  assert (result.returncode, verdict(result)) == (
      1, "linked statically: no loader reads LD_PRELOAD")


def test_process_with_a_malloc_of_its_own(minitc, lib, compiled):
  program = compiled("own_sleep", source=(OWN % ("", "")).replace("return 0", "pause()"))
  with running([program], {"LD_PRELOAD": lib}) as process:
    result = minitc("check", str(process.pid))
  assert (result.returncode, verdict(result)) == (
      1, f"{lib} is loaded and idle: malloc is that of {program}")


def test_process_with_raised_rights(minitc, lib, copy_of_true):
  program = shutil.copy("/bin/sleep", copy_of_true.parent / "sleep")
  os.chown(program, NOBODY, NOBODY)
  program.chmod(0o4755)
  if os.statvfs(program).f_flag & os.ST_NOSUID:
    pytest.skip("the file system is mounted nosuid")
  with running([program, "60"], {"LD_PRELOAD": lib}) as process:
    result = minitc("check", str(process.pid))
  assert (result.returncode, verdict(result)) == (
      1, "it has raised rights (AT_SECURE), and so ignored LD_PRELOAD")


def test_library_was_replaced(minitc, lib, tmp_path):
  other = tmp_path / "libminitc.so"
  shutil.copy(lib, other)
  with running(SLEEP, {"LD_PRELOAD": str(other)}) as process:
    result = minitc("check", str(process.pid))
    assert (result.returncode, notes(result)[-1]) == (0, f"that is another file than {lib}")
    other.unlink()
    result = minitc("check", str(process.pid))
  assert result.returncode == 0
  assert notes(result)[-1] == "the library's file was replaced since: the process has the old one"


def test_process_of_somebody_else(run_plain, lib, copy_of_true):
  scripts = copy_of_true.parent / "scripts"
  shutil.copytree(pathlib.Path(__file__).parents[2] / "scripts", scripts)
  shutil.copy(lib, copy_of_true.parent / "libminitc.so")
  with running(SLEEP) as process:
    result = run_plain(["/usr/bin/python3", scripts / "minitc", "check", str(process.pid)],
                         **AS_NOBODY)
  assert (result.returncode, result.stdout, result.stderr) == (
      2, "", f"minitc: {process.pid}: no right to look into that process\n")


# --- Bad input -------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, message", [
    ([], "minitc check: no command is given"),
    (["--bogus"], "minitc check: --bogus: no such option"),
    (["no-such-program"], "minitc: no-such-program: no such program"),
    (["./no/such"], "minitc: ./no/such: no such program"),
    (["/tmp"], "minitc: /tmp: a directory"),
    (["/etc/passwd"], "minitc: /etc/passwd: not executable"),
    (["4194399"], "minitc: 4194399: no such process")])
def test_bad_input(minitc, words, message):
  result = minitc("check", *words)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr.splitlines()[-1] == message


def test_names_of_any_bytes(minitc, lib, tmp_path):
  """Of programs and of the library, where names are commonly UTF-8."""
  folder = os.fsdecode(os.fsencode(tmp_path / "d") + b"\xff")
  os.mkdir(folder)
  program, library = f"{folder}/true", f"{folder}/libminitc.so"
  shutil.copy("/bin/true", program)
  os.symlink(lib, library)
  result = minitc("check", "--lib", library, program, errors="surrogateescape",
                  env={"PYTHONIOENCODING": "utf-8:strict"})
  assert (result.returncode, result.stdout, result.stderr) == (0, f"{program}: works\n", "")


@pytest.mark.parametrize("length", [4, 20, 63, 100, 1000, 20000])
def test_torn_program(minitc, tmp_path, length):
  path = tmp_path / "torn"
  path.write_bytes(pathlib.Path("/bin/true").read_bytes()[:length])
  path.chmod(0o755)
  result = minitc("check", path)
  assert result.returncode in (1, 2) and "Traceback" not in result.stderr
  assert result.stdout + result.stderr
