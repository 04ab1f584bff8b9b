"""What the library exports and needs, and each allocating function with each freeing one."""
import re
import subprocess

import pytest

C_SYMBOLS = """malloc free calloc realloc reallocarray memalign aligned_alloc posix_memalign valloc
    pvalloc cfree malloc_usable_size malloc_trim malloc_stats malloc_info mallinfo mallinfo2 mallopt
    free_sized free_aligned_sized __libc_malloc __libc_free __libc_calloc __libc_realloc
    __libc_memalign __libc_valloc __libc_pvalloc __posix_memalign dlopen dlmopen""".split()

NOTHROW, ALIGNED = "RKSt9nothrow_t", "St11align_val_t"
NEWS = {kind: [f"_Zn{kind}m", f"_Zn{kind}m{NOTHROW}"] for kind in "wa"}
ALIGNED_NEWS = {kind: [f"_Zn{kind}m{ALIGNED}", f"_Zn{kind}m{ALIGNED}{NOTHROW}"] for kind in "wa"}
DELETE_OF = {"w": "l", "a": "a"}
DELETES = {kind: [f"_Zd{d}Pv", f"_Zd{d}Pvm", f"_Zd{d}Pv{NOTHROW}"]
           for kind, d in DELETE_OF.items()}
ALIGNED_DELETES = {kind: [f"_Zd{d}Pv{ALIGNED}", f"_Zd{d}Pvm{ALIGNED}",
                          f"_Zd{d}Pv{ALIGNED}{NOTHROW}"] for kind, d in DELETE_OF.items()}
CXX_SYMBOLS = sum([names[kind] for names in (NEWS, ALIGNED_NEWS, DELETES, ALIGNED_DELETES)
                   for kind in "wa"], [])

ALLOCATORS = """malloc calloc realloc reallocarray memalign posix_memalign valloc pvalloc
    aligned_alloc __libc_malloc __libc_calloc __libc_realloc __libc_memalign __libc_valloc
    __libc_pvalloc __posix_memalign""".split()
RELEASERS = "free cfree realloc reallocarray __libc_free __libc_realloc".split()
# Legal by C23 for these alone; for the rest only free is.
SIZED = [(name, "free_sized") for name in ("malloc", "calloc", "realloc", "__libc_malloc")]
SIZED += [("aligned_alloc", "free_aligned_sized")]
PAIRS = [(a, r) for a in ALLOCATORS for r in RELEASERS] + SIZED
PAIRS += [(a, r) for kind in "wa" for a in NEWS[kind] for r in DELETES[kind]]
PAIRS += [(a, r) for kind in "wa" for a in ALIGNED_NEWS[kind] for r in ALIGNED_DELETES[kind]]
# Not legal, but common in old programs that glibc and libstdc++ let live.
PAIRS += [("_Znwm", "free"), ("_Znam", "_ZdlPv"), ("_Znwm", "_ZdaPv"), ("malloc", "_ZdlPv"),
          ("malloc", "_ZdlPvm"), ("_Znwm", "realloc"), ("aligned_alloc", "_ZdlPv" + ALIGNED),
          ("_Znwm" + ALIGNED, "free")]

# The library must answer before these work, and another preload may have replaced any of them.
MAY_NOT_USE = """malloc free calloc realloc getenv secure_getenv setenv putenv open open64 openat
    read pread mmap mmap64 munmap mremap madvise mprotect sbrk brk printf fprintf vfprintf snprintf
    sprintf puts dprintf perror strdup strerror strtol strtoul strtoull sigprocmask pthread_sigmask
    sigaction signal fork vfork clone pthread_create sysconf fopen system popen
    backtrace setlocale qsort atoi sscanf sleep usleep nanosleep sched_getaffinity sched_getcpu
    get_nprocs get_nprocs_conf pthread_mutex_lock pthread_once __rseq_offset""".split()


def symbols(lib, option):
  """The names of dynamic symbols: "defined" as (type, name), without version suffixes."""
  out = subprocess.run(["nm", "-D", option, lib], capture_output=True, text=True, check=True).stdout
  return [(line.split()[-2], line.split()[-1].split("@")[0]) for line in out.splitlines()]


@pytest.fixture(scope="module")
def exported(lib):
  return dict((name, kind) for kind, name in symbols(lib, "--defined-only"))


@pytest.fixture(scope="module")
def dynamic_section(lib):
  return subprocess.run(["readelf", "-dW", lib], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", C_SYMBOLS + CXX_SYMBOLS)
def test_exports(exported, name):
  assert exported.get(name) in ("T", "i", "W"), f"{name} is not an exported function"


def test_exports_nothing_else(exported):
  extra = set(exported) - set(C_SYMBOLS) - set(CXX_SYMBOLS)
  # A version script defines its version names as absolute symbols.
  extra = {name for name in extra if exported[name] != "A"}
  # Fork handlers are registered by the one in programs for glibc, by the other elsewhere.
  extra = {name for name in extra if not name.startswith("minitc_")}
  assert extra in ({"__register_atfork"}, {"pthread_atfork"})


def test_count_of_operators():
  assert len(CXX_SYMBOLS) == 20


def test_needs_only_libc(dynamic_section):
  needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic_section))
  libc = {"libc.so.6", "libc.so"}  # glibc's, musl's
  assert needed & libc and needed <= libc | {"ld-linux-x86-64.so.2"}


def test_has_no_search_path(dynamic_section):
  assert "RPATH" not in dynamic_section and "RUNPATH" not in dynamic_section


@pytest.mark.parametrize("flag", ["NOW", "NODELETE", "STATIC_TLS"])
def test_link_flags(dynamic_section, flag):
  flags = " ".join(re.findall(r"\(FLAGS(?:_1)?\)\s+(.*)", dynamic_section))
  assert flag in flags


def test_has_no_text_relocations(dynamic_section):
  assert "TEXTREL" not in dynamic_section


def test_thread_local_storage_is_small(lib):
  out = subprocess.run(["readelf", "-lW", lib], capture_output=True, text=True, check=True).stdout
  size = re.search(r"^\s*TLS\s+\S+\s+\S+\s+\S+\s+\S+\s+(0x[0-9a-f]+)", out, re.MULTILINE)
  assert size is None or int(size[1], 16) <= 128


def test_stack_is_not_executable(lib):
  out = subprocess.run(["readelf", "-lW", lib], capture_output=True, text=True, check=True).stdout
  assert re.search(r"GNU_STACK.* RW ", out) and not re.search(r"GNU_STACK.* RWE", out)


@pytest.mark.parametrize("name", MAY_NOT_USE)
def test_calls_nothing_that_may_be_replaced(lib, name):
  assert name not in {used for _, used in symbols(lib, "--undefined-only")}


def test_needs_the_cxx_runtime_only_weakly(lib):
  strong = {name for kind, name in symbols(lib, "--undefined-only") if kind == "U"}
  assert {name for name in strong if name.startswith(("_Z", "__cxa_", "__gxx", "_Unwind"))} <= {
      "__cxa_atexit", "__cxa_finalize", "__cxa_thread_atexit_impl"}


@pytest.mark.parametrize("allocator, releaser", PAIRS)
def test_pair(run_ok, build, allocator, releaser):
  result = run_ok([build / "preload" / "pairing", allocator, releaser])
  assert (result.stdout, result.stderr) == ("", "")
