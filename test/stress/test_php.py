"""php with json, dom, mbstring and opcache. Debian's php loads its extensions with RTLD_DEEPBIND, which
under a preloaded malloc ends it at once, unless the preload sees to it."""
import pytest

from side_by_side import HERE, run_both, tool

OPCACHE = ["-d", "opcache.enable_cli=1"]
JIT = [*OPCACHE, "-d", "opcache.jit=tracing", "-d", "opcache.jit_buffer_size=32M"]


def test_php_starts(run_ok):
  result = run_ok([tool("php", "php-cli"), "-r", "echo 1;"])
  assert (result.stdout, result.stderr) == ("1", "")


def test_php_dies_of_the_flag(run_preloaded):
  """The control: php does use the flag, and it does harm."""
  result = run_preloaded([tool("php", "php-cli"), "-r", "echo 1;"], {"MINITC_KEEP_DEEPBIND": "1"})
  assert result.returncode < 0


@pytest.mark.parametrize("options", [OPCACHE, JIT], ids=["opcache", "jit"])
@pytest.mark.parametrize("own_allocator", ["1", "0"], ids=["zend_alloc", "malloc"])
def test_php_prints_the_same(lib, tmp_path, options, own_allocator):
  argv = [tool("php", "php-cli"), *options, HERE / "work.php"]
  _, preloaded = run_both(tmp_path, lib, argv, USE_ZEND_ALLOC=own_allocator)
  for word in [b"MISSING", b"DIFFERENT", b"OFF", b"NOT CACHED"]:
    assert word not in preloaded.out
