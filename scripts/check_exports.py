#!/usr/bin/python3
"""Checks what libminitc.so shows to the dynamic linker.

Usage: check_exports.py LIB EXPORTS_MAP OBJECT...

Its exports are the version script's list and nothing else; it needs libc alone, imports only the
symbols named below, binds them all at start, stays loaded, asks for a few words of static TLS, and
runs no constructor but those named below. The objects that it is linked of reach each other
directly.
"""

import re
import subprocess
import sys

NEEDED = {"libc.so.6", "ld-linux-x86-64.so.2"}
TLS_BYTES = 64

# Every symbol that the library takes from elsewhere, with the reason why it may. None of them
# allocates, locks or is open to interposition where it is called on a path that has to work; a new
# one needs a reason of its own here.
IMPORTS = {
    "__asan_poison_memory_region": "weak: AddressSanitizer in the program watches its region pools",
    "__asan_unpoison_memory_region": "likewise",
    "__cxa_finalize": "weak, crtstuff: unloading, which nodelete rules out",
    "__gmon_start__": "weak, crtstuff: profiling",
    "_ITM_deregisterTMCloneTable": "weak, crtstuff: transactional memory",
    "_ITM_registerTMCloneTable": "weak, crtstuff: transactional memory",
    "__environ": "data: another name of environ",
    "environ": "data: the options; getenv might be interposed",
    "__errno_location": "errno",
    "__lsan_init": "weak: LeakSanitizer behind us would find no leaks, which is said",
    "__tsan_init": "weak: ThreadSanitizer behind us would find races that are none; likewise",
    "abort": "the end of a program that misused its memory",
    "__libc_single_threaded": "fork: no locks for a process of one thread; weak",
    "_IO_list_lock": "fork: glibc's list of streams before our locks; weak",
    "_IO_list_unlock": "likewise",
    "_IO_list_resetlock": "likewise, in the child",
    "dlsym": "operator new out of memory: finds the runtime's own, which throws; dlopen: "
             "the real one",
    "dlvsym": "dlopen and pthread_atfork: the real ones, whoever interposes dlsym",
    "fwrite": "malloc_info writes to the caller's FILE",
    "getauxval": "the kernel's page size, AT_SECURE",
    "memcpy": "realloc; batches between the tiers",
    "memmove": "batches between the tiers",
    "memset": "calloc; new metadata",
    "pthread_key_create": "to learn of a thread's end",
    "pthread_setspecific": "to learn of a thread's end",
    "strchr": "parsing options",
    "strcmp": "parsing options",
    "strlen": "parsing options",
    "strncmp": "parsing options",
}

# In the version script for the builds for other libcs.
OF_OTHER_LIBCS = {"pthread_atfork"}

# Functions that run when the library is loaded or unloaded, with what they are for.
CONSTRUCTORS = {
    "frame_dummy": "crtstuff",
    "minitc::(anonymous namespace)::start_at_load()": "starts the heap if no call has done so",
}
DESTRUCTORS = {
    "__do_global_dtors_aux": "crtstuff",
    "minitc::(anonymous namespace)::report_at_end()": "MINITC_STATS=1 prints its report",
}

# One TLS relocation is right: an offset from the thread pointer, fixed when the library is loaded.
TLS_RELOCATIONS = {"R_X86_64_TPOFF64", "R_X86_64_TPOFF32"}


def run(*argv):
  done = subprocess.run(argv, check=False, capture_output=True, text=True)
  if done.returncode:
    sys.exit(f"{' '.join(argv)}: {done.stderr.strip()}")
  return done.stdout


def parse_map(text):
  """Returns the names in the version script's global lists, and what is wrong with the script."""
  errors = []
  text = re.sub(r"/\*.*?\*/|#[^\n]*|//[^\n]*", " ", text, flags=re.S)
  names = []
  scope = None
  for token in re.findall(r"global\s*:|local\s*:|[{};]|[^\s{};]+", text):
    if token.endswith(":"):
      scope = token.rstrip(":").strip()
    elif token in "{}":
      scope = None
    elif token == ";" or scope is None:
      continue
    elif scope == "global":
      if re.search(r'[*?\["]', token) or token == "extern":
        errors.append(f"map: {token}: list each symbol by its own, mangled name")
      names.append(token)
    elif token != "*":
      errors.append(f"map: local: {token}: everything else is local, write *")
  twice = {name for name in names if names.count(name) > 1}
  errors += [f"map: {name} is listed twice" for name in sorted(twice)]
  if "*" not in re.findall(r"local\s*:\s*(\*)\s*;", text):
    errors.append("map: has no local: *;")
  return set(names), errors


def dynamic_symbols(lib):
  """Returns (exported, imported, ifuncs): names of the dynamic symbol table, without versions."""
  exported, imported, ifuncs = set(), set(), set()
  for line in run("readelf", "--dyn-syms", "-W", lib).splitlines():
    fields = line.split()
    if len(fields) < 8 or not re.fullmatch(r"\d+:", fields[0]):
      continue
    kind, index, name = fields[3], fields[6], fields[7].split("@")[0]
    if index == "UND":
      imported.add(name)
    elif index != "ABS" or kind != "OBJECT":  # an ABS OBJECT is the name of a symbol version
      exported.add(name)
    if kind == "IFUNC" and index != "UND":
      ifuncs.add(name)
  return exported, imported, ifuncs


def check_symbols(lib, map_path):
  with open(map_path, encoding="utf-8") as stream:
    listed, errors = parse_map(stream.read())
  exported, imported, ifuncs = dynamic_symbols(lib)
  errors += [f"{name} is in the map but not exported"
             for name in sorted(listed - exported - OF_OTHER_LIBCS)]
  errors += [f"{name} is exported but not in the map" for name in sorted(exported - listed)]
  for name in sorted(imported):
    if name not in IMPORTS:
      errors.append(f"{name} is imported; IMPORTS in scripts/check_exports.py gives no reason")
  # A resolver of our own would run before the library is relocated.
  errors += [f"{name} is an IFUNC" for name in sorted(ifuncs)]
  unused = sorted(IMPORTS.keys() - imported)
  if unused:  # no error: another compiler may make other calls of its own
    print(f"note: not imported, though IMPORTS gives a reason: {' '.join(unused)}")
  print(f"{len(exported)} exports, {len(imported)} imports")
  return errors


def check_dynamic_section(lib):
  errors = []
  tags = {}
  listing = run("readelf", "-dW", lib)
  for tag, value in re.findall(r"^ 0x[0-9a-f]+ \((\w+)\)\s+(.*)$", listing, re.M):
    tags.setdefault(tag, []).append(value)
  needed = set(re.findall(r"\[(.*?)\]", " ".join(tags.get("NEEDED", []))))
  errors += [f"needs {name}" for name in sorted(needed - NEEDED)]
  if "libc.so.6" not in needed:
    errors.append("does not need libc.so.6")
  flags = " ".join(tags.get("FLAGS", []) + tags.get("FLAGS_1", [])).split()
  for flag in ("BIND_NOW", "NOW", "NODELETE", "STATIC_TLS"):
    if flag not in flags:
      errors.append(f"dynamic flag {flag} is missing")
  if "TEXTREL" in flags or "TEXTREL" in tags:
    errors.append("has text relocations")
  for tag in ("RPATH", "RUNPATH"):
    if tag in tags:
      errors.append(f"has {tag}")
  return errors


def check_segments(lib):
  errors = []
  seen = set()
  tls_bytes = 0
  for line in run("readelf", "-lW", lib).splitlines():
    match = re.match(r"\s+(\w+)\s+0x\w+ 0x\w+ 0x\w+ 0x\w+ (0x\w+) ([R ][W ][E ]) ", line)
    if not match:
      continue
    kind, size, access = match.group(1), int(match.group(2), 16), match.group(3)
    seen.add(kind)
    if "W" in access and "E" in access:
      errors.append(f"segment {kind} is writable and executable")
    if kind == "GNU_STACK" and "E" in access:
      errors.append("asks for an executable stack")
    if kind == "TLS":
      tls_bytes = size
  if tls_bytes > TLS_BYTES:
    errors.append(f"static TLS is {tls_bytes} bytes, more than {TLS_BYTES}")
  for kind in ("GNU_STACK", "GNU_RELRO"):  # without GNU_STACK the kernel assumes an executable one
    if kind not in seen:
      errors.append(f"segment {kind} is missing")
  print(f"{tls_bytes} bytes of TLS")
  return errors


def functions_in_array(lib, tag):
  """Names of the functions in the INIT_ARRAY or FINI_ARRAY section, from its relocations."""
  section = re.search(rf"\s\.{tag}\s+\w+\s+([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+)",
                      run("readelf", "-SW", lib))
  if not section:
    return []
  begin, size = int(section.group(1), 16), int(section.group(2), 16)
  symbols = {}
  for address, name in re.findall(r"^([0-9a-f]+) [tTwW] (.+)$", run("nm", "-C", lib), re.M):
    symbols.setdefault(int(address, 16), name)
  names = []
  for offset, target in re.findall(r"^([0-9a-f]{16})\s+\w+ R_X86_64_RELATIVE\s+([0-9a-f]+)$",
                                   run("readelf", "-rW", lib), re.M):
    if begin <= int(offset, 16) < begin + size:
      names.append(symbols.get(int(target, 16), "0x" + target))
  if len(names) * 8 != size:
    names.append(f"({size // 8 - len(names)} entries of .{tag} that no relocation fills)")
  return names


def check_constructors(lib):
  errors = []
  for tag, allowed in (("init_array", CONSTRUCTORS), ("fini_array", DESTRUCTORS)):
    for name in functions_in_array(lib, tag):
      if name not in allowed:
        errors.append(f".{tag} runs {name}, which scripts/check_exports.py does not name")
  return errors


def check_relocations(lib):
  kinds = set(re.findall(r"R_X86_64_\w+", run("readelf", "-rW", lib)))
  wrong = {kind for kind in kinds if re.search("TPOFF|DTP|TLS", kind)} - TLS_RELOCATIONS
  errors = [f"TLS relocation {kind}: not the initial-exec model" for kind in sorted(wrong)]
  return errors + [f"relocation {kind}" for kind in sorted(kinds) if "IRELATIV" in kind]


def check_objects(objects):
  """What goes through the GOT does not work before the library is relocated. On x86-64 the linker
  mends that; not on AArch64."""
  uses = re.findall(r"R_X86_64_(?:REX_)?GOT(?!TPOFF)\w* +[0-9a-f]+ (_ZN?K?6minitc\w+)",
                    run("readelf", "-rW", *objects))
  return [f"{name} is reached through the GOT: declare it in namespace MINITC_HIDDEN minitc"
          for name in sorted(set(uses))]


def main():
  if len(sys.argv) < 4:
    sys.exit(__doc__)
  lib, map_path, *objects = sys.argv[1:]
  errors = check_symbols(lib, map_path) + check_dynamic_section(lib) + check_segments(lib)
  errors += check_constructors(lib) + check_relocations(lib) + check_objects(objects)
  for line in errors:
    print(f"{lib}: {line}")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())
