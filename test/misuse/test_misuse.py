"""One crime a test: what it prints on stderr, to the letter, and how it ends: in SIGABRT, or, where
bad pointers are ignored, as if nothing had happened."""
import signal

import pytest

AT_ONCE = {"MINITC_CHECK_FREE": "1"}
FOUND_LATE = " (found when it left the thread cache; MINITC_CHECK_FREE=1 finds it at the call)"
ALIASES = {"realloc_to_zero": "realloc", "reallocarray": "realloc", "__libc_realloc": "realloc",
           "realloc": "realloc", "malloc_usable_size": "malloc_usable_size"}
FUNCTIONS = ["free", "cfree", "free_sized", "free_aligned_sized", "__libc_free", "realloc",
             "realloc_to_zero", "reallocarray", "__libc_realloc", "malloc_usable_size"]
MAIN_FUNCTIONS = ["free", "realloc", "malloc_usable_size"]
DELETE_FORMS = ["plain", "array", "sized", "sized_array", "nothrow", "nothrow_array", "aligned",
                "aligned_array", "sized_aligned", "sized_aligned_array", "nothrow_aligned",
                "nothrow_aligned_array"]

# A thread that never allocated has no cache, and so nothing to find late.
WHEN = [("cache", {}, FOUND_LATE), ("none", {}, ""), ("cache", AT_ONCE, "")]
WHEN_IDS = ["late", "without_cache", "at_once"]


def head(function, pointer):
  """The beginning of every message; what only stands for another function goes by its name."""
  return f"libminitc: {ALIASES.get(function, 'free')}({pointer}): "


def foreign(function, pointer):
  return head(function, pointer) + (
      "foreign pointer: not allocated by libminitc; stack, static, mapped or another allocator's "
      "memory")


def of_plugin(function, pointer):
  return head(function, pointer) + (
      "foreign pointer: not allocated by libminitc; likely by libc's malloc for a plugin loaded "
      "with RTLD_DEEPBIND, which MINITC_KEEP_DEEPBIND=1 permits")


def interior(function, pointer, start, usable_bytes):
  return head(function, pointer) + (
      f"interior pointer: the object begins at {start} and has {usable_bytes} bytes")


def already_free(function, pointer):
  reason = "double free" if function not in ALIASES else "stale pointer"
  return head(function, pointer) + f"{reason}: the object is already free"


def pages_free(function, pointer):
  return head(function, pointer) + "stale pointer: its pages are free"


@pytest.fixture(params=["abort", "ignore"])
def crime(run_preloaded, build, request):
  """Runs a crime and asserts what holds for each: the announcement on stdout, one line on stderr,
  and the end. `message` builds that line from the announced words."""
  ending = {"abort": ("", -signal.SIGABRT), "ignore": ("survived\n", 0)}[request.param]

  def run(program, *words, message, suffix="", env=None):
    env = {"MINITC_ON_BAD_FREE": request.param, **(env or {})}
    result = run_preloaded([build / "misuse" / program, *words], env)
    announced, _, rest = result.stdout.partition("\n")
    assert result.stderr == message(*announced.split()) + suffix + "\n"
    assert (rest, result.returncode) == ending
  return run


# Foreign pointers.

@pytest.mark.parametrize("function", FUNCTIONS)
def test_stack(crime, function):
  crime("stack_object", function, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("section", ["data", "bss", "rodata"])
def test_static_data(crime, section, function):
  crime("static_object", function, section, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("offset", [0, 16, 4095])
def test_mapped_page(crime, offset, function):
  crime("mapped_page", function, offset, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
def test_unmapped_page(crime, function):
  crime("unmapped_page", function, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("address", [
    "0x1", "0x8", "0x1000", "0x10000", "0x7ffffffff000", "0x800000000000", "0xffffffffffff",
    "0x1000000000000", "0x1000000001000", "0xdeadbeefdeadbeef", "0x8000000000000000",
    "0xffff800000000000", "0xffffffffff600000", "0xfffffffffffffff0", "0xffffffffffffffff"])
def test_address(crime, address, function):
  crime("address", function, address, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize("tag", ["b400000000000000", "8000000000000000", "0001000000000000",
                                 "0100000000000000"])
def test_tagged_pointer(crime, tag, size, function):
  crime("tagged_pointer", function, tag, size, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("program", ["bump_allocator", "other_namespace"])
def test_other_allocator(crime, program, function):
  crime(program, function, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
def test_deepbind_plugin(crime, build, function):
  plugin = build / "preload" / "lib_deepbind.so"
  crime("deepbind_plugin", function, plugin, env={"MINITC_KEEP_DEEPBIND": "1"},
        message=lambda p: of_plugin(function, p))


def test_plugin_is_blamed_only_if_there_is_one(crime):
  crime("stack_object", "free", env={"MINITC_KEEP_DEEPBIND": "1"},
        message=lambda p: foreign("free", p))


def test_plugin_is_not_blamed_for_a_flag_without_effect(crime, build):
  crime("deepbind_plugin", "free", build / "preload" / "lib_deepbind.so", "static",
        message=lambda p: foreign("free", p))


@pytest.mark.parametrize("form", DELETE_FORMS)
def test_delete_of_stack(crime, form):
  crime("wrong_delete", form, "stack", message=lambda p: foreign("free", p))


# Interior pointers.

@pytest.mark.parametrize("function", ["free", "cfree", "free_sized", "realloc", "realloc_to_zero",
                                      "malloc_usable_size"])
@pytest.mark.parametrize("size, offset", [(8, 1), (16, 8), (24, 16), (100, 1), (112, 56),
                                          (1000, 16), (5000, 4999), (100000, 8192),
                                          (262144, 262128)])
def test_interior_small_at_the_call(crime, size, offset, function):
  crime("interior_small", function, size, offset, env=AT_ONCE,
        message=lambda p, start, n: interior(function, p, start, n))


@pytest.mark.parametrize("function", ["realloc", "realloc_to_zero", "reallocarray",
                                      "malloc_usable_size"])
@pytest.mark.parametrize("size, offset", [(8, 1), (100, 16), (5000, 4999), (262144, 131072)])
def test_interior_small_needs_no_option(crime, size, offset, function):
  crime("interior_small", function, size, offset,
        message=lambda p, start, n: interior(function, p, start, n))


@pytest.mark.parametrize("size", [16, 200, 1500])
def test_interior_small_spilled(crime, size):
  crime("interior_free_spilled", "free", size, suffix=FOUND_LATE,
        message=lambda p, start, n: interior("free", p, start, n))


@pytest.mark.parametrize("cache, env, suffix", WHEN, ids=WHEN_IDS)
def test_interior_small_thread_exit(crime, cache, env, suffix):
  crime("interior_free_thread_exit", cache, env=env, suffix=suffix,
        message=lambda p, start, n: interior("free", p, start, n))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("offset", [1, 16, 8191, 8192, 524288, 786448, -8192, -16, -1])
def test_interior_large(crime, offset, function):
  crime("interior_large", function, 1 << 20, offset,
        message=lambda p, start, n: interior(function, p, start, n))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("size, offset", [(262145, 8192), (300000, -16), (100 << 20, 50 << 20),
                                          (100 << 20, -8192)])
def test_interior_large_sizes(crime, size, offset, function):
  crime("interior_large", function, size, offset,
        message=lambda p, start, n: interior(function, p, start, n))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("alignment, size, offset", [
    (64, 100, 64), (4096, 100, 16), (8192, 8192, 4096), (65536, 70000, 65536),
    (1 << 20, 300, 64), (1 << 20, 2 << 20, 1 << 20)])
def test_interior_aligned(crime, alignment, size, offset, function):
  crime("interior_aligned", function, alignment, size, offset, env=AT_ONCE,
        message=lambda p, start, n: interior(function, p, start, n))


@pytest.mark.parametrize("form", DELETE_FORMS)
def test_delete_of_interior(crime, form):
  crime("wrong_delete", form, "interior",
        message=lambda p, start, n: interior("free", p, start, n))


# Freed objects.

@pytest.mark.parametrize("size", [8, 16, 200, 1500])
def test_double_free_spilled(crime, size):
  crime("double_free_spilled", "free", size, suffix=FOUND_LATE,
        message=lambda p: already_free("free", p))


@pytest.mark.parametrize("cache, env, suffix", WHEN, ids=WHEN_IDS)
@pytest.mark.parametrize("program", ["double_free_thread_exit", "double_free_two_threads"])
def test_double_free_in_threads(crime, program, cache, env, suffix):
  crime(program, cache, env=env, suffix=suffix, message=lambda p: already_free("free", p))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [8, 200, 3000])
def test_freed_small_at_the_call(crime, size, function):
  crime("freed_small", function, size, env=AT_ONCE,
        message=lambda p: already_free(function, p))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [262145, 1 << 20, 64 << 20])
def test_freed_large(crime, size, function):
  crime("freed_large", function, size, message=lambda p: pages_free(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("which", [0, 1, 4, 8])
def test_freed_coalesced(crime, which, function):
  crime("freed_coalesced", function, which, message=lambda p: pages_free(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
def test_freed_span(crime, function):
  crime("freed_span", function, env=AT_ONCE, message=lambda p: pages_free(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
def test_never_allocated(crime, function):
  crime("never_allocated", function, env=AT_ONCE, message=lambda p: already_free(function, p))


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
def test_span_tail(crime, function):
  """The waste behind a span's last object never was an object."""
  crime("span_tail", function, env=AT_ONCE, message=lambda p: foreign(function, p))


@pytest.mark.parametrize("form", DELETE_FORMS)
def test_delete_of_freed(crime, form):
  crime("wrong_delete", form, "freed", message=lambda p: pages_free("free", p))


# Region pools.

@pytest.mark.parametrize("how", ["reset", "destroy"])
def test_pool_in_cleanup(run_preloaded, build, how):
  result = run_preloaded([build / "misuse" / "pool_in_cleanup", how])
  pool, rest = result.stdout.split("\n", 1)
  assert result.stderr == (f"libminitc: minitc_pool_{how}({pool}): called by a cleanup function of "
                           "the same pool\n")
  assert (rest, result.returncode) == ("", -signal.SIGABRT)


@pytest.mark.parametrize("function", ["alloc", "take", "free_large", "reset", "destroy"])
def test_pool_two_threads(run_preloaded, build, is_debug, function):
  """Only the debug build looks; make debug runs this."""
  if not is_debug:
    pytest.skip("not the debug build")
  result = run_preloaded([build / "misuse" / "pool_two_threads", function])
  pool, rest = result.stdout.split("\n", 1)
  assert result.stderr == f"libminitc: pool {pool}: used by two threads at a time\n"
  assert (rest, result.returncode) == ("", -signal.SIGABRT)


@pytest.mark.parametrize("function", ["reset", "destroy", "free_large"])
def test_pool_freed_behind(crime, function):
  crime("pool_freed_behind", function, message=lambda p: pages_free("free", p))


# Circumstances.

@pytest.mark.parametrize("program, words", [
    ("stack_object", ["free"]), ("interior_large", ["free", 1 << 20, 16]),
    ("freed_large", ["realloc", 1 << 20]), ("double_free_thread_exit", [])])
def test_closed_stderr(run_preloaded, build, program, words):
  """Nobody can read the message, but the program must end all the same."""
  command = [build / "misuse" / program, *words]
  result = run_preloaded(["/bin/sh", "-c", 'exec "$0" "$@" 2>&-', *command], timeout=20)
  assert result.returncode == -signal.SIGABRT
  assert "survived" not in result.stdout


@pytest.mark.parametrize("kind, message", [
    ("foreign", lambda p: foreign("free", p)), ("freed", lambda p: already_free("free", p))])
def test_abort_handler_may_allocate(run_preloaded, build, kind, message):
  result = run_preloaded([build / "misuse" / "abort_handler", "free", kind], AT_ONCE, timeout=20)
  pointer, said, rest = result.stdout.split("\n")
  assert (said, rest) == ("handler done", "")
  assert result.stderr == message(pointer) + "\n"
  assert result.returncode == 3


@pytest.mark.parametrize("on_bad_free", ["abort", "ignore"])
def test_new_without_runtime(run_preloaded, build, on_bad_free):
  """No bad pointer, and nothing that could be ignored."""
  result = run_preloaded([build / "misuse" / "new_without_runtime"],
                         {"MINITC_ON_BAD_FREE": on_bad_free})
  assert result.stderr == (
      f"libminitc: operator new({(1 << 64) // 4 - 1}): out of memory, and no C++ runtime is loaded "
      "that could throw std::bad_alloc\n")
  assert (result.stdout, result.returncode) == ("0x1\n", -signal.SIGABRT)


# Ignored.

@pytest.mark.parametrize("sites", [1, 2])
@pytest.mark.parametrize("kind, verdict", [
    ("foreign", "foreign pointer: "), ("interior", "interior pointer: "),
    ("interior_large", "interior pointer: "), ("freed", ": the object is already free"),
    ("freed_large", "stale pointer: its pages are free"),
    ("freed_span", "stale pointer: its pages are free")])
@pytest.mark.parametrize("function", FUNCTIONS + ["operator_delete"])
def test_each_call_site_speaks_once(run_preloaded, build, function, kind, verdict, sites):
  """A thousand crimes at each of the sites."""
  result = run_preloaded([build / "misuse" / "call_sites", function, kind, sites],
                         {**AT_ONCE, "MINITC_ON_BAD_FREE": "ignore"})
  assert (result.stdout, result.returncode) == ("survived\n", 0)
  lines = result.stderr.splitlines()
  assert len(lines) == sites
  for line in lines:
    assert line.startswith(f"libminitc: {ALIASES.get(function, 'free')}(0x") and verdict in line


def test_late_finds_speak_once_per_class_and_reason(run_preloaded, build):
  result = run_preloaded([build / "misuse" / "ignored_threads", "late"],
                         {"MINITC_ON_BAD_FREE": "ignore"})
  assert (result.stdout, result.returncode) == ("survived\n", 0)
  # 8 threads, each with a size class of its own and a double free and an interior pointer in it.
  assert len(result.stderr.splitlines()) == 16
  for reason in ["double free: the object is already free", "interior pointer: the object begins"]:
    assert sum(reason in line for line in result.stderr.splitlines()) == 8
  assert all(line.endswith(FOUND_LATE) for line in result.stderr.splitlines())


def test_threads_share_the_call_sites(run_preloaded, build):
  result = run_preloaded([build / "misuse" / "ignored_threads", "at_once"],
                         {**AT_ONCE, "MINITC_ON_BAD_FREE": "ignore"})
  assert (result.stdout, result.returncode) == ("survived\n", 0)
  assert len(result.stderr.splitlines()) == 5


def test_more_call_sites_than_can_be_told(run_preloaded, build):
  result = run_preloaded([build / "misuse" / "many_sites"], {"MINITC_ON_BAD_FREE": "ignore"})
  assert (result.stdout, result.returncode) == ("survived\n", 0)
  lines = result.stderr.splitlines()
  assert len(lines) == 257
  assert all("foreign pointer" in line for line in lines[:256])
  assert lines[256] == "libminitc: bad pointers at more than 256 calls; no others are named"


def test_null_is_no_crime(run_preloaded, build):
  """The control: the same program with a null pointer survives."""
  for function in FUNCTIONS:
    result = run_preloaded([build / "misuse" / "address", function, "0x0"])
    announced, rest = result.stdout.split("\n", 1)
    assert (result.returncode, announced in ("(nil)", "0"), rest) == (0, True, "survived\n")
    assert result.stderr == ""
