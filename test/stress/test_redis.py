"""redis-server on libminitc: under load with saves, and its data across restarts.

Debian links redis with libjemalloc.so.2 as a shared object and calls it by the plain names, so a
preloaded library takes all of malloc, free, calloc, realloc and malloc_usable_size. Three calls
still reach jemalloc, which then manages next to nothing: mallctl (figures for INFO, MEMORY PURGE),
malloc_stats_print (MEMORY MALLOC-STATS) and nallocx (a guess at a class size, by which redis
decides whether shrinking a string in place is worth a realloc; none of them takes a pointer).
"""
import re
import subprocess
import threading

import pytest

from redis_support import (Client, Server, data_set, pipe, read_all, require_same_keys, wait_for)
from side_by_side import environment, tail, tool

BENCHMARK_REQUESTS = 8_000
MALLOC_FAMILY = {
    "malloc", "free", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc",
    "posix_memalign", "valloc", "pvalloc", "cfree", "malloc_usable_size", "malloc_trim",
    "malloc_stats", "malloc_info", "mallinfo", "mallinfo2", "mallopt",
}
# What redis may still ask jemalloc: nothing that hands over memory or takes a pointer to some.
HARMLESS_JEMALLOC = {"mallctl", "malloc_stats_print", "nallocx"}
# Frees by background threads: an object's last thread is then not its first.
LAZY = ["--lazyfree-lazy-user-del", "yes", "--lazyfree-lazy-server-del", "yes",
        "--lazyfree-lazy-expire", "yes"]
MIB = 1 << 20


def bindings(lib, tmp_path):
  """Whose symbol each object of redis-server uses: a list of (user, provider, symbol)."""
  env = environment(tmp_path, lib, LD_BIND_NOW="1", LD_DEBUG="bindings",
                    LD_DEBUG_OUTPUT=str(tmp_path / "bindings"))
  subprocess.run([tool("redis-server", "redis-server"), "--version"], env=env, check=True,
                 capture_output=True, timeout=60)
  text = "".join(path.read_text() for path in tmp_path.glob("bindings.*"))
  return re.findall(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(\w+)'", text)


def test_every_malloc_binding_is_ours(lib, tmp_path):
  found = bindings(lib, tmp_path)
  ours = {(user, symbol) for user, provider, symbol in found if provider == lib}
  for symbol in ("malloc", "free", "calloc", "realloc", "malloc_usable_size"):
    assert (tool("redis-server", "redis-server"), symbol) in ours, f"{symbol} of redis-server"
  users = {user for user, symbol in ours if symbol == "malloc"}
  assert any("libc.so" in user for user in users) and any("libcrypto" in user for user in users)
  strays = [entry for entry in found if entry[2] in MALLOC_FAMILY and entry[1] != lib]
  assert not strays, f"allocation symbols bound past the library: {strays}"
  jemalloc = {symbol for user, provider, symbol in found
              if "jemalloc" in provider and "jemalloc" not in user}
  assert jemalloc <= HARMLESS_JEMALLOC, (
      f"redis calls jemalloc's {sorted(jemalloc - HARMLESS_JEMALLOC)}: could it meet our pointers?")


def live_bytes(report):
  """The live heap in the library's report, in bytes."""
  found = re.search(r"^libminitc: live +(\d+) ", report, re.MULTILINE)
  assert found, f"no live heap in the report:\n{report[:2000]}"
  return int(found.group(1))


def require_our_malloc(server, lib, client):
  """Only what the running process itself shows: its mappings, and two sets of books. used_memory
  is redis's own sum over malloc_usable_size, allocator_allocated is what jemalloc handed out."""
  assert lib in server.maps()
  info = client.info()
  used, jemalloc = int(info["used_memory"]), int(info["allocator_allocated"])
  assert jemalloc < MIB < used, f"redis uses {used} bytes, jemalloc gave it {jemalloc}"
  return used


def save_and_rewrite(server, stop, done):
  """BGSAVE and BGREWRITEAOF in turn, each as soon as the last one has ended: a fork of a server
  that is busy, again and again."""
  client = Client(server.port)
  while not stop.is_set():
    for command, key in (("BGSAVE", "rdb_bgsave_in_progress"),
                         ("BGREWRITEAOF", "aof_rewrite_in_progress")):
      client.call(command)
      wait_for(command, lambda: client.info()[key] == "0")
      done[command] += 1
  info = client.info()
  done["status"] = (info["rdb_last_bgsave_status"], info["aof_last_bgrewrite_status"])
  client.close()


def benchmark(server):
  """All default commands; gives the names of the tests it reports."""
  argv = [tool("redis-benchmark", "redis-tools"), "-p", str(server.port), "-c", "50", "-P", "16",
          "-n", str(BENCHMARK_REQUESTS), "-r", "20000", "-d", "100", "--csv"]
  done = subprocess.run(argv, env=environment(server.folder), capture_output=True, timeout=240,
                        check=False)
  assert done.returncode == 0, f"redis-benchmark: {tail(done.stderr)}\n{server.story()}"
  assert b"rror" not in done.stdout + done.stderr, tail(done.stdout + done.stderr)
  names = [line.split('","')[0].strip('"') for line in done.stdout.decode().splitlines()]
  return names[1:]  # the first line is the heading


def load(folder, lib):
  """Benchmark and saves at once on one server; gives what must not depend on the malloc, the
  digest of the data in the end, and whatever was printed at exit."""
  # A second thread reads and parses requests, and writes answers, so buffers change threads.
  options = ["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0",
             "--io-threads", "2", "--io-threads-do-reads", "yes", *LAZY]
  with Server(folder, lib, *options, MINITC_STATS="1") as server:
    stop, done = threading.Event(), {"BGSAVE": 0, "BGREWRITEAOF": 0, "status": None}
    saver = threading.Thread(target=save_and_rewrite, args=(server, stop, done))
    saver.start()
    try:
      names = benchmark(server)
    finally:
      stop.set()
      saver.join()
    assert done["status"] == ("ok", "ok"), server.story()
    assert done["BGSAVE"] >= 3 and done["BGREWRITEAOF"] >= 3, f"too few saves: {done}"
    client = Client(server.port)
    info = client.info()
    assert info["total_error_replies"] == "0", info
    commands = {name.removeprefix("cmdstat_"): int(re.match(r"calls=(\d+)", value).group(1))
                for name, value in info.items() if name.startswith("cmdstat_")}
    enough = sorted(name for name, calls in commands.items() if calls >= BENCHMARK_REQUESTS)
    if lib is not None:
      require_our_malloc(server, lib, client)
    digest = client.call("DEBUG", "DIGEST")
    client.close()
    return (names, enough), digest, server.shutdown()


def digest_after_restart(folder, lib, appendonly):
  """What a new server reads from the files that the last one left."""
  with Server(folder, lib, "--appendonly", appendonly, *LAZY) as server:
    client = Client(server.port)
    digest = client.call("DEBUG", "DIGEST")
    client.close()
    server.shutdown("NOSAVE")
  return digest


def test_benchmark_with_saves_under_load(lib, tmp_path):
  plain, _, _ = load(tmp_path / "plain", None)
  preloaded, digest, report = load(tmp_path / "preloaded", lib)
  assert len(plain[0]) >= 19 and len(plain[1]) >= 15, plain
  assert preloaded == plain, "redis-benchmark did something else on libminitc"
  assert live_bytes(report) > MIB, report
  for library in (lib, None):
    for appendonly in ("no", "yes"):
      assert digest_after_restart(tmp_path / "preloaded", library, appendonly) == digest, (
          f"restart with appendonly {appendonly}, preloaded: {library is not None}")


@pytest.fixture(name="pair")
def fixture_pair(lib, tmp_path):
  """Two servers given the same commands: plain, preloaded. The append-only file holds commands."""
  options = ["--aof-use-rdb-preamble", "no", *LAZY]
  commands = list(data_set())
  with Server(tmp_path / "plain", None, *options) as plain:
    with Server(tmp_path / "preloaded", lib, *options, MINITC_STATS="1") as preloaded:
      pipe(plain, commands)
      pipe(preloaded, commands)
      yield plain, preloaded, options


def test_every_key_survives_restarts(lib, tmp_path, pair):
  plain, preloaded, options = pair
  client = Client(plain.port)
  expected, expected_digest = read_all(client), client.call("DEBUG", "DIGEST")
  plain_info = client.info()
  # Without the library jemalloc has it all, or require_our_malloc would prove nothing.
  assert int(plain_info["allocator_allocated"]) > 0.9 * int(plain_info["used_memory"])

  def check(server, where):
    client = Client(server.port)
    require_same_keys(expected, read_all(client), where)
    assert client.call("DEBUG", "DIGEST") == expected_digest, where
    client.close()

  check(preloaded, "preloaded, as written")
  client = Client(preloaded.port)
  require_our_malloc(preloaded, lib, client)
  # jemalloc answers these about itself; they must not meet our memory.
  assert client.call("MEMORY", "PURGE") == b"OK"
  assert b"Allocated: " in client.call("MEMORY", "MALLOC-STATS")
  client.call("DEBUG", "RELOAD")
  check(preloaded, "preloaded, after DEBUG RELOAD")
  # Switching the append-only file on writes all there is to it.
  client.call("CONFIG", "SET", "appendonly", "yes")
  wait_for("the append-only file", lambda: client.info()["aof_rewrite_in_progress"] == "0"
           and client.info()["aof_rewrite_scheduled"] == "0")
  assert client.info()["aof_last_bgrewrite_status"] == "ok"
  used = require_our_malloc(preloaded, lib, client)
  assert used > 40 * MIB
  client.close()
  report = preloaded.shutdown()
  live = live_bytes(report)
  assert 0.95 * used < live < 1.1 * used, f"redis uses {used} bytes, the report says {live}"

  folder = preloaded.folder
  for library, appendonly in ((lib, "no"), (lib, "yes"), (None, "no")):
    where = f"{'preloaded' if library else 'plain'}, restarted with appendonly {appendonly}"
    with Server(folder, library, "--appendonly", appendonly, *options) as server:
      check(server, where)
      if appendonly == "yes":  # what is written now is appended to the file of commands
        pipe(server, [("SET", "late", "1"), ("FLUSHALL", "ASYNC"), *data_set()])
        check(server, "preloaded, flushed and written again")
      server.shutdown("NOSAVE")
  with Server(folder, lib, "--appendonly", "yes", *options) as server:
    check(server, "preloaded, restarted from a file of commands with a flush in it")
    server.shutdown("NOSAVE")
