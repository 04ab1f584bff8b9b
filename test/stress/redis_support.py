"""A redis-server in a folder of its own, a client for it, and a data set to fill it with."""
import random
import signal
import socket
import subprocess
import time

import pytest

from side_by_side import environment, tail, tool


class Client:
  """The redis protocol over one connection. Answers are bytes, integers, None or lists of them."""

  def __init__(self, port):
    self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
    self.reader = self.socket.makefile("rb")

  def close(self):
    self.reader.close()
    self.socket.close()

  def send(self, *words):
    self.socket.sendall(encode(*words))

  def receive(self):
    line = self.reader.readline()
    if not line.endswith(b"\r\n"):
      raise ConnectionError("the server has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
      raise RuntimeError(f"redis answers: {rest.decode()}")
    if kind == b"+":
      return rest
    if kind == b":":
      return int(rest)
    if kind == b"$":
      if int(rest) < 0:
        return None
      data = self.reader.read(int(rest) + 2)
      if len(data) != int(rest) + 2:
        raise ConnectionError("the server has closed the connection")
      return data[:-2]
    if kind == b"*":
      return None if int(rest) < 0 else [self.receive() for _ in range(int(rest))]
    raise RuntimeError(f"not the redis protocol: {line!r}")

  def call(self, *words):
    self.send(*words)
    return self.receive()

  def call_all(self, commands):
    """Sends all, then reads all: one round trip. The commands must be short."""
    self.socket.sendall(b"".join(encode(*command) for command in commands))
    return [self.receive() for _ in commands]

  def info(self):
    """INFO ALL as a dictionary of strings."""
    lines = self.call("INFO", "ALL").decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def encode(*words):
  """One command as the protocol spells it."""
  out = [b"*%d\r\n" % len(words)]
  for word in words:
    data = word if isinstance(word, bytes) else str(word).encode()
    out.append(b"$%d\r\n%s\r\n" % (len(data), data))
  return b"".join(out)


def free_port():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


class Server:
  """A redis-server on 127.0.0.1, preloaded when lib is given; a context manager that ends it."""

  def __init__(self, folder, lib=None, *options, **env):
    folder.mkdir(exist_ok=True)
    self.folder = folder
    self.stderr = folder / "stderr"
    self.log = folder / "log"
    self.port = None
    for _ in range(5):  # another program may take the port between the look and the bind
      self.port = free_port()
      self.process = self.launch(lib, options, env)
      if self.wait_until_ready():
        return
    pytest.fail(f"redis-server does not start: {self.story()}")

  def launch(self, lib, options, env):
    argv = [tool("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(self.port),
            "--dir", str(self.folder), "--logfile", str(self.log), "--daemonize", "no",
            "--save", "", "--enable-debug-command", "local", *options]
    with open(self.stderr, "wb") as err:
      return subprocess.Popen(argv, env=environment(self.folder, lib, **env), cwd=self.folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)

  def wait_until_ready(self):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
      if self.process.poll() is not None:
        return False
      try:
        client = Client(self.port)
        try:
          if client.call("PING") == b"PONG" and client.info()["process_id"] == str(
              self.process.pid):
            return True
        finally:
          client.close()
      except (OSError, RuntimeError):  # not listening yet, or still loading its data
        pass
      time.sleep(0.05)
    self.kill()
    return False

  def story(self):
    """What the server wrote, for a message about a failure."""
    parts = [path.read_bytes() if path.exists() else b"" for path in (self.log, self.stderr)]
    return f"status {self.process.poll()}\n{tail(parts[0])}\n{tail(parts[1])}"

  def kill(self):
    if self.process.poll() is None:
      self.process.send_signal(signal.SIGKILL)
      self.process.wait()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  def shutdown(self, how="SAVE"):
    """Ends the server as an operator does; gives what it and the library wrote on stderr."""
    client = Client(self.port)
    client.send("SHUTDOWN", how)
    try:
      client.receive()
    except (ConnectionError, RuntimeError) as answer:
      if isinstance(answer, RuntimeError):
        raise
    client.close()
    assert self.process.wait(60) == 0, f"redis-server ends badly: {self.story()}"
    return self.stderr.read_text(errors="replace")

  def maps(self):
    with open(f"/proc/{self.process.pid}/maps", encoding="ascii") as maps:
      return maps.read()


def wait_for(what, is_done, seconds=60):
  deadline = time.monotonic() + seconds
  while not is_done():
    if time.monotonic() > deadline:
      pytest.fail(f"{what}: not within {seconds} s")
    time.sleep(0.02)


def blob(rng, longest):
  """Bytes of a length spread evenly over the orders of magnitude; half of them compress well."""
  length = int(longest ** rng.random())
  if rng.random() < 0.5:
    return (b"%x," % rng.getrandbits(64)) * (length // 10) + b"." * (length % 10)
  return rng.randbytes(length)


def data_set():
  """Commands that build, grow, shrink and drop values of every type; always the same ones."""
  rng = random.Random(1234)
  for i in range(6000):
    yield "SET", f"string:{i}", blob(rng, 20_000)
  for i in range(6):
    yield "SET", f"large:{i}", rng.randbytes(700_000 * (i + 1))
  for i in range(3000):  # values that grow in place, or move
    yield "APPEND", f"string:{rng.randrange(600)}", blob(rng, 3000)
  for i in range(300):
    yield "SETRANGE", f"sparse:{i % 40}", rng.randrange(60_000), blob(rng, 200)
    yield "SETBIT", f"bits:{i % 10}", rng.randrange(400_000), 1
  for i in range(400):
    yield "INCRBY", f"number:{i % 90}", rng.randrange(10 ** 9)
  for i in range(500):
    for _ in range(rng.randrange(1, 8)):
      yield ("RPUSH" if rng.random() < 0.5 else "LPUSH", f"list:{i}",
             *(blob(rng, 400) for _ in range(rng.randrange(1, 40))))
  for i in range(0, 500, 3):
    yield "LTRIM", f"list:{i}", 1, -3
    yield "LSET", f"list:{i + 1}", 0, blob(rng, 9000)
  yield "RPUSH", "list:long", *(b"element %d" % i for i in range(30_000))
  for i in range(500):  # small ones stay packed, large ones become hash tables
    for _ in range(rng.randrange(1, 6)):
      pairs = [(b"field %d" % rng.randrange(500), blob(rng, 200))
               for _ in range(rng.randrange(1, 60))]
      yield "HSET", f"hash:{i}", *(word for pair in pairs for word in pair)
    yield "HDEL", f"hash:{i}", *(b"field %d" % n for n in range(0, 500, 7))
  for i in range(400):
    members = ([str(rng.randrange(10 ** 12)) for _ in range(rng.randrange(1, 800))] if i % 2
               else [blob(rng, 100) for _ in range(rng.randrange(1, 200))])
    yield "SADD", f"set:{i}", *members
    yield "SREM", f"set:{i}", *members[::3]
  for i in range(300):
    for _ in range(rng.randrange(1, 4)):
      scored = [(repr(rng.uniform(-1e6, 1e6)), b"member %d" % rng.randrange(2000))
                for _ in range(rng.randrange(1, 150))]
      yield "ZADD", f"zset:{i}", *(word for pair in scored for word in pair)
    yield "ZREMRANGEBYRANK", f"zset:{i}", 0, rng.randrange(4)
  for i in range(60):
    for n in range(1, rng.randrange(2, 200)):
      yield "XADD", f"stream:{i}", f"{n}-{i + 1}", "name", blob(rng, 60), "n", str(n)
    # Trimmed before it is read: a file of commands does not keep what is pending and gone.
    yield "XTRIM", f"stream:{i}", "MAXLEN", 100
    yield "XGROUP", "CREATE", f"stream:{i}", "readers", "0"
    yield "XREADGROUP", "GROUP", "readers", "one", "COUNT", 5, "STREAMS", f"stream:{i}", ">"
  for i in range(2000):
    yield "PFADD", f"hll:{i % 10}", *(f"visitor {rng.randrange(10 ** 6)}" for _ in range(5))
  yield ("EVAL", "for i = 1, 2000 do local t = {} for j = 1, i % 40 do t[j] = i .. ':' .. j end "
         "redis.call('SET', 'lua:' .. i, table.concat(t, ',') .. string.rep('x', i)) end "
         "return 1", 0)
  yield "ZUNIONSTORE", "zset:union", 40, *(f"zset:{i}" for i in range(40))
  yield "SUNIONSTORE", "set:union", *(f"set:{i}" for i in range(60))
  yield "SORT", "list:long", "ALPHA", "STORE", "list:sorted"
  yield "DEL", *(f"string:{i}" for i in range(0, 6000, 11))
  yield "UNLINK", *(f"hash:{i}" for i in range(0, 500, 11)), "large:2"
  for i in range(1, 1000, 7):
    yield "PEXPIREAT", f"string:{i}", 4_000_000_000_000 + i
  yield "COPY", "list:long", "list:copied"
  yield "RENAME", "large:3", "renamed"


# How to read all of a value, per type, and whether the order of what comes is part of the value.
READERS = {
    b"string": (lambda key: ("GET", key), True),
    b"list": (lambda key: ("LRANGE", key, 0, -1), True),
    b"zset": (lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"), True),
    b"set": (lambda key: ("SMEMBERS", key), False),
    b"hash": (lambda key: ("HGETALL", key), False),
    b"stream": (lambda key: ("XRANGE", key, "-", "+"), True),
}


def read_all(client):
  """Every key's type, expiry and whole value; sets and hashes in an order of our own, since
  redis seeds its hash function anew at every start."""
  keys, cursor = set(), b"0"
  while True:
    cursor, some = client.call("SCAN", cursor, "COUNT", 1000)
    keys.update(some)
    if cursor == b"0":
      break
  keys = sorted(keys)
  result = {}
  for chunk in (keys[i:i + 200] for i in range(0, len(keys), 200)):
    kinds = client.call_all([("TYPE", key) for key in chunk])
    expiries = client.call_all([("PEXPIRETIME", key) for key in chunk])
    values = client.call_all([READERS[kind][0](key) for kind, key in zip(kinds, chunk)])
    for key, kind, expiry, value in zip(chunk, kinds, expiries, values):
      if kind == b"hash":
        value = sorted(zip(value[::2], value[1::2]))
      elif not READERS[kind][1]:
        value = sorted(value)
      groups = read_groups(client, key) if kind == b"stream" else None
      result[key] = (kind, expiry, value, groups)
  return result


def read_groups(client, key):
  """A stream's consumer groups, less what a file of commands does not keep (entries-read, lag)."""
  groups = [dict(zip(group[::2], group[1::2])) for group in client.call("XINFO", "GROUPS", key)]
  return [[group[name] for name in (b"name", b"consumers", b"pending", b"last-delivered-id")]
          for group in groups]


def require_same_keys(expected, found, where):
  """Names the first few keys that differ."""
  assert len(expected) > 8000
  missing = sorted(expected.keys() - found.keys())
  added = sorted(found.keys() - expected.keys())
  changed = [key for key in sorted(expected.keys() & found.keys()) if expected[key] != found[key]]
  assert not (missing or added or changed), (
      f"{where}: {len(missing)} keys missing {missing[:3]}, {len(added)} too many {added[:3]}, "
      f"{len(changed)} changed {changed[:3]}")


def pipe(server, commands):
  """Sends commands with redis-cli --pipe, and requires that every one succeeds."""
  path = server.folder / "commands"
  path.write_bytes(b"".join(encode(*command) for command in commands))
  with open(path, "rb") as source:
    result = subprocess.run([tool("redis-cli", "redis-tools"), "-p", str(server.port), "--pipe"],
                            env=environment(server.folder), stdin=source, capture_output=True,
                            timeout=120, check=False)
  path.unlink()
  assert result.returncode == 0 and b"errors: 0," in result.stdout, (
      f"redis-cli --pipe: {tail(result.stdout)}{tail(result.stderr)}\n{server.story()}")
