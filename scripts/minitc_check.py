"""Whether a program can run on libminitc.so, or a process does: the command minitc's check."""
import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import stat
import struct
import subprocess

import minitc_elf
from bench_contestants import BadInput

LIBRARY = re.compile(r"/libminitc[^/]*\.so[^/]*$")
# Libraries with a malloc that passes no call on to the next one.
ALLOCATORS = re.compile(
    r"/lib(jemalloc|tcmalloc|mimalloc|rpmalloc|snmalloc|hardened_malloc|tbbmalloc|Hoard|hoard|mesh)"
    r"[^/]*\.so[^/]*$")
RUNTIMES = {"libasan": "AddressSanitizer", "libhwasan": "HWAddressSanitizer",
            "liblsan": "LeakSanitizer", "libtsan": "ThreadSanitizer"}
SHELLS = ("ash", "bash", "busybox", "dash", "ksh", "mksh", "sh", "zsh")
LOADER = re.compile(r"/ld-linux[^/]*\.so\.\d+$")
SCRIPTS_DEEP = 5  # the kernel follows no more
HEAD_BYTES = 256  # nor does it read more of the first line
AT_SECURE = 23
TRACE_SECONDS = 30
# What cannot be seen in the file. A basename, as a regular expression: a note.
KNOWN = {
    r"php([\d.]|-fpm|-cgi)*": "its extensions are loaded with RTLD_DEEPBIND; the library takes that "
                              "flag out, unless MINITC_KEEP_DEEPBIND=1",
    r"systemctl|service|initctl": "it asks another process to start the program: the variable has to "
                                  "be in the unit (Environment=LD_PRELOAD=…)",
    r"docker|podman|nerdctl|kubectl|lxc": "it asks another process to start the program: library and "
                                          "variable have to be in the container",
    r"snap|flatpak": "what it starts has a file system of its own, which has no such library",
    r"valgrind": "valgrind's tools have a malloc of their own, unless "
                 "--soname-synonyms=somalloc=nouserintercepts is given",
}


@dataclasses.dataclass
class Verdict:
  """works, and why not; notes are what is worth knowing in any case. rivals: other libraries of the
  program that define malloc, and are idle behind this one."""
  subject: str
  works: bool = True
  reason: str = ""
  notes: list = dataclasses.field(default_factory=list)
  rivals: list = dataclasses.field(default_factory=list)

  def fail(self, reason):
    """The first reason counts."""
    if self.works:
      self.works, self.reason = False, reason

  def __str__(self):
    return f"{self.subject}: {'works' if self.works else self.reason}"


def preload_list(value):
  """The entries of LD_PRELOAD."""
  return [entry for entry in re.split(r"[ :]+", value or "") if entry]


def preloaded(env, lib):
  """The environment with the library at the end of LD_PRELOAD: what is there has its reasons to be
  first, as a sanitizer's runtime or a profiler has."""
  entries = preload_list(env.get("LD_PRELOAD"))
  if lib not in entries:
    entries.append(lib)
  return {**env, "LD_PRELOAD": ":".join(entries)}


def read_elf(path, shown=None):
  try:
    return minitc_elf.read(path)
  except minitc_elf.NotElf as problem:
    raise BadInput(str(problem)) from problem
  except OSError as problem:
    raise BadInput(f"{shown or path}: {problem.strerror}") from problem


# --- From a command's name to a program ------------------------------------------------------------

def find_program(name, env):
  path = shutil.which(name, path=env.get("PATH", os.defpath))
  if path is not None:
    return os.path.abspath(path)
  if os.sep in name and os.path.exists(name):
    what = "a directory" if os.path.isdir(name) else "not executable"
    raise BadInput(f"{name}: {what}")
  raise BadInput(f"{name}: no such program")


def program_of_env(argument, env):
  """The program that `env ARGUMENT…` runs; None if that is not plain to see."""
  try:
    words = shlex.split(argument)
  except ValueError:  # a quotation without an end
    return None
  for word in words:
    if word.startswith("-") and word != "-S":
      return None
    if word != "-S" and "=" not in word:
      return find_program(word, env)
  return None


def describe_script(path, interpreter, verdict):
  """A script is what its interpreter is; a shell's may decide otherwise."""
  verdict.notes.append(f"{path} is a script, run by {interpreter}")
  if os.path.basename(interpreter) not in SHELLS:
    return
  verdict.notes.append("what the shell starts is on the library too, and is not checked here")
  with open(path, encoding="utf-8", errors="replace") as script:
    for number, line in enumerate(script, 1):
      if re.search(r"\bLD_PRELOAD\b", line) and not line.lstrip().startswith("#"):
        verdict.notes.append(f"line {number} changes or reads LD_PRELOAD: {line.strip()}")
      elif re.match(r"\s*exec\s+[^<>&\s]", line):
        verdict.notes.append(f"line {number} ends the script by {line.strip()}")


def follow_scripts(path, env, verdict):
  """The ELF file that the kernel runs in the end, or None when there is none."""
  for _ in range(SCRIPTS_DEEP):
    try:
      with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    except OSError as problem:
      raise BadInput(f"{path}: {problem.strerror}") from problem
    if head.startswith(b"\x7fELF"):
      return path
    if not head.startswith(b"#!"):
      verdict.fail(f"{path} is neither an ELF file nor a script that begins with #!")
      return None
    # As the kernel: blanks and tabs divide the line, a CR is part of a name.
    line = os.fsdecode(head[2:].split(b"\n", 1)[0]).strip(" \t")
    interpreter, argument = (*re.split(r"[ \t]+", line, maxsplit=1), "")[:2]
    if not os.path.isfile(interpreter):
      shown = interpreter.replace("\r", "^M") or "interpreter"
      verdict.fail(f"{path} is a script, and there is no {shown} to run it")
      return None
    if os.path.basename(interpreter) == "env":
      interpreter = program_of_env(argument, env) or interpreter
    describe_script(path, interpreter, verdict)
    path = interpreter
  verdict.fail(f"{path}: scripts that run scripts, more than {SCRIPTS_DEEP} deep")
  return None


# --- What the file says ----------------------------------------------------------------------------

def check_rights(path, verdict):
  """Whether the kernel will mark the program AT_SECURE when this user starts it."""
  info = os.stat(path)
  gains = []
  if info.st_mode & stat.S_ISUID:
    gains.append(("setuid", info.st_uid != os.getuid()))
  if info.st_mode & stat.S_ISGID and info.st_mode & stat.S_IXGRP:
    gains.append(("setgid", info.st_gid != os.getgid()))
  try:
    os.getxattr(path, "security.capability")
    gains.append(("file capabilities", os.getuid() != 0))
  except OSError:
    pass
  status = pathlib.Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
  if os.statvfs(path).f_flag & os.ST_NOSUID or re.search(r"^NoNewPrivs:\s*1$", status, re.M):
    return
  for what, counts in gains:
    if counts:
      verdict.fail(f"{what}: a program with raised rights ignores LD_PRELOAD")
    else:
      verdict.notes.append(f"{what}: when another user starts it, it ignores LD_PRELOAD")


def check_kind(elf, library, verdict):
  """Loader, class, machine and libc."""
  if elf.interpreter is None:
    go = " (a Go program)" if elf.is_go else ""
    verdict.fail(f"linked statically{go}: no loader reads LD_PRELOAD")
  elif elf.bits != library.bits:
    verdict.fail(f"a program for {elf.bits} bits; the library is for {library.bits}")
  elif elf.machine != library.machine:
    verdict.fail(f"a program for {elf.machine}; the library is for {library.machine}")
  else:
    mine, theirs = ("glibc" if "libc.so.6" in library.needed else "musl",
                    "musl" if "/ld-musl" in elf.interpreter else "glibc")
    if mine != theirs:
      verdict.fail(f"linked with {theirs}; the library is for {mine}")


def check_symbols(elf, verdict):
  """What is linked into the program itself."""
  if elf.sanitizer:
    verdict.fail(f"built with {elf.sanitizer}, whose malloc has to be first")
  elif elf.defines_malloc:
    verdict.fail("it defines malloc itself, and what a program defines comes before LD_PRELOAD")
  elif {"malloc", "free"} <= elf.hidden:
    verdict.fail("an allocator is linked in whose malloc is not exported: "
                 "pointers of two allocators would meet")
  for name in sorted(elf.embedded):
    verdict.notes.append(f"{name} seems to be compiled in: what the program takes from it under "
                         "names of its own stays there")


def sanitizer_of(path):
  return RUNTIMES.get(os.path.basename(path).split(".")[0])


def trace(elf, env):
  """The files that the loader would map, in their order, and what it complains of. It runs nothing of
  the program; only a loader that belongs to root is asked."""
  loader = os.path.realpath(elf.interpreter)
  if not LOADER.search(elf.interpreter) or not os.path.isfile(loader):
    return None, f"its loader {elf.interpreter} is missing" if not os.path.isfile(loader) else ""
  if os.stat(loader).st_uid != 0:
    return None, ""
  try:
    done = subprocess.run([loader, "--list", elf.path], env=env, capture_output=True, text=True,
                          errors="surrogateescape", stdin=subprocess.DEVNULL, timeout=TRACE_SECONDS,
                          check=False)
  except (OSError, subprocess.TimeoutExpired):
    return None, ""
  paths = re.findall(r"^\t(?:.* => )?(/.*) \(0x[0-9a-f]+\)$", done.stdout, re.M)
  return paths, done.stderr.strip().removeprefix(f"{elf.path}: ")


def check_libraries(elf, lib, env, verdict):
  """What is loaded with the program, and in which order."""
  paths, complaint = trace(elf, env)
  if paths is None:
    if complaint:
      verdict.fail(complaint)
    else:
      verdict.notes.append(f"its loader {elf.interpreter} was not asked what it would load")
    return
  if lib not in paths:
    verdict.fail(complaint.splitlines()[-1] if complaint else f"the loader does not load {lib}")
    return
  if complaint:
    verdict.notes.append(f"the loader says: {complaint}")
  for position, path in enumerate(paths):
    if sanitizer_of(path):
      verdict.fail(f"{os.path.basename(path)} is loaded: {sanitizer_of(path)}'s malloc has to be "
                   "first")
    if path == lib or LOADER.search(path) or "/libc.so" in path or not has_malloc(path):
      continue
    if position > paths.index(lib):
      verdict.rivals.append(path)
      verdict.notes.append(f"{path}, with which it is linked, will be idle")
    elif ALLOCATORS.search(path) or LIBRARY.search(path):
      verdict.fail(f"{path} comes first in LD_PRELOAD and has a malloc of its own")
    else:
      verdict.notes.append(f"{path} comes first in LD_PRELOAD, and sees each call before the library")


def has_malloc(path):
  try:
    return minitc_elf.read(path).defines_malloc
  except (minitc_elf.NotElf, OSError):
    return False


def check_command(words, lib, env):
  """Whether the command, started by this user in this environment, will run on the library."""
  found = find_program(words[0], env)
  verdict = Verdict(words[0] if words[0] == found else f"{words[0]} ({found})")
  path = follow_scripts(found, env, verdict)
  if path is None:
    return verdict
  elf = read_elf(path)
  check_kind(elf, read_elf(lib), verdict)
  check_rights(path, verdict)
  check_symbols(elf, verdict)
  if verdict.works:
    check_libraries(elf, lib, preloaded(env, lib), verdict)
  for pattern, note in KNOWN.items():
    if re.fullmatch(pattern, os.path.basename(path)) or re.fullmatch(pattern,
                                                                     os.path.basename(found)):
      verdict.notes.append(note)
  return verdict


# --- A process -------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Mapping:
  """A line of /proc/PID/maps that has a file."""
  begin: int
  end: int
  offset: int
  path: str
  is_deleted: bool


def mappings(proc):
  found = []
  for line in (proc / "maps").read_text(errors="replace").splitlines():
    match = re.fullmatch(r"(\w+)-(\w+) \S+ (\w+) \S+ \d+ +(/.*?)( \(deleted\))?", line)
    if match:
      begin, end, offset = (int(part, 16) for part in match.groups()[:3])
      found.append(Mapping(begin, end, offset, match.group(4), match.group(5) is not None))
  return found


def is_secure(proc):
  return dict(struct.iter_unpack("=QQ", (proc / "auxv").read_bytes())).get(AT_SECURE, 0) != 0


def owner_of_malloc(proc, maps):
  """The path of the file whose malloc libc calls, which is the one that all others call. From where
  the loader wrote its address when it loaded libc; None if there is no such place."""
  libc = next((m for m in maps if re.search(r"/libc[.-][^/]*so[^/]*$", m.path) and m.offset == 0
               and not m.is_deleted), None)
  if libc is None:
    return None
  slots = minitc_elf.slots_of(f"{proc}/root{libc.path}", "malloc")
  if not slots:
    return None
  with open(proc / "mem", "rb") as memory:
    memory.seek(libc.begin + slots[0])
    address, = struct.unpack("=Q", memory.read(8))
  return next((m.path for m in maps if m.begin <= address < m.end), None)


def why_not_loaded(proc, elf, verdict):
  """The library is not in the process: from the surest reason to the likeliest."""
  if is_secure(proc):
    verdict.fail("it has raised rights (AT_SECURE), and so ignored LD_PRELOAD")
  environment = dict(entry.partition("=")[::2] for entry in
                     (proc / "environ").read_text(errors="replace").split("\0"))
  entries = preload_list(environment.get("LD_PRELOAD"))
  named = next((entry for entry in entries if LIBRARY.search("/" + entry)), None)
  if named is None and entries:
    verdict.fail(f"it was started with LD_PRELOAD={':'.join(entries)}, without the library")
  elif named is None:
    verdict.fail("it was started without LD_PRELOAD, or its environment is overwritten")
  elif named.startswith("/") and not os.path.exists(f"{proc}/root{named}"):
    verdict.fail(f"LD_PRELOAD names {named}, which is not in its file system")
  else:
    verdict.fail(f"LD_PRELOAD names {named}, which the loader did not load: its stderr says why")


def check_process(pid, lib):
  """Whether a process runs on the library."""
  proc = pathlib.Path(f"/proc/{pid}")
  if not proc.is_dir():
    raise BadInput(f"{pid}: no such process")
  try:
    exe = os.readlink(proc / "exe")
  except FileNotFoundError:
    raise BadInput(f"{pid}: a thread of the kernel, or a process that has ended") from None
  except PermissionError:
    raise BadInput(f"{pid}: no right to look into that process") from None
  name = (proc / "comm").read_text(errors="replace").strip()
  verdict = Verdict(f"{pid} ({name}, {exe})")
  try:
    return check_running(proc, lib, verdict)
  except PermissionError as problem:
    raise BadInput(f"{verdict.subject}: no right to look into that process ({problem.filename})"
                   ) from None
  except (FileNotFoundError, ProcessLookupError):
    raise BadInput(f"{verdict.subject}: it has ended") from None


def check_running(proc, lib, verdict):
  maps = mappings(proc)
  elf = read_elf(proc / "exe")
  ours = [m for m in maps if LIBRARY.search(m.path)]
  if not ours:
    check_kind(elf, read_elf(lib), verdict)
    if verdict.works:
      why_not_loaded(proc, elf, verdict)
    return verdict
  try:
    owner = owner_of_malloc(proc, maps)
  except PermissionError:
    owner = None
  rivals = sorted({m.path for m in maps if not LIBRARY.search(m.path) and "/libc.so" not in m.path
                   and has_malloc(f"{proc}/root{m.path}")})
  if owner is None and not rivals:
    owner = ours[0].path
  if owner is None:
    raise BadInput(f"{verdict.subject}: {ours[0].path} is loaded, and so is {rivals[0]}; whose malloc "
                  "is used could not be seen")
  if not LIBRARY.search(owner):
    verdict.fail(f"{ours[0].path} is loaded and idle: malloc is that of {owner}")
    return verdict
  verdict.notes.append(f"malloc is that of {owner}")
  verdict.notes += [f"{path} is loaded and idle" for path in rivals]
  if any(m.is_deleted for m in ours):
    verdict.notes.append("the library's file was replaced since: the process has the old one")
  elif not os.path.exists(lib) or not os.path.samefile(f"{proc}/root{owner}", lib):
    verdict.notes.append(f"that is another file than {lib}")
  return verdict
