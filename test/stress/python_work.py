"""Work for a python3 whose every object comes from malloc. Prints one line of text per task, with
a digest of the result; test_python.py compares the lines of two interpreters."""
import collections
import concurrent.futures
import fractions
import gc
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import re
import sys
import threading
import zlib


def digest(text):
  return hashlib.sha256(text.encode()).hexdigest()


def tree(rng, depth):
  kind = rng.randrange(8) if depth else rng.randrange(4)
  if kind == 0:
    return rng.random() * 10 ** rng.randrange(-20, 20)
  if kind == 1:
    return "".join(rng.choices("abcdefgh \u00e9\u20ac\U0001f600\"\\\n", k=rng.randrange(60)))
  if kind == 2:
    return rng.randrange(-2 ** rng.randrange(1, 200), 2 ** 64)
  if kind == 3:
    return rng.choice([True, False, None])
  if kind < 6:
    return [tree(rng, depth - 1) for _ in range(rng.randrange(12))]
  return {f"key {rng.randrange(10 ** 6)}": tree(rng, depth - 1) for _ in range(rng.randrange(12))}


def json_round_trips(seed):
  rng = random.Random(seed)
  data = [tree(rng, 6) for _ in range(30)]
  text = json.dumps(data)
  for indent in (None, 1, 3):
    again = json.loads(json.dumps(json.loads(text), indent=indent, ensure_ascii=bool(indent)))
    if again != data:
      raise SystemExit("json: a round trip changes the data")
  if pickle.loads(pickle.dumps(data)) != data:
    raise SystemExit("pickle: a round trip changes the data")
  return digest(text)


def mixed(seed):
  """Strings, dicts, lists, bytes, big numbers, cycles: what a program's objects look like."""
  rng = random.Random(seed)
  words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 12))) for _ in range(6000)]
  counts = collections.Counter(words)
  text = " ".join(words)
  swapped = re.sub(r"([aeiou])([^aeiou ])", r"\2\1", text)
  buffer = io.BytesIO()
  for word in words:
    buffer.write(zlib.crc32(word.encode()).to_bytes(4, "big") * rng.randrange(20))
  packed = zlib.compress(buffer.getvalue(), 3)
  if zlib.decompress(packed) != buffer.getvalue():
    raise SystemExit("zlib: a round trip changes the data")
  total = fractions.Fraction(0)
  for number in range(1, 250):
    total += fractions.Fraction(rng.randrange(1, 99), number)
  deque = collections.deque(maxlen=100)
  for i in range(2000):
    deque.append([i] * rng.randrange(50))
  for i in range(500):  # cycles, for the collector
    first, second = [i], {"i": i}
    first.append(second)
    second["first"] = first
  gc.collect()
  return digest(repr((counts.most_common(50), swapped, packed, total, list(deque))))


def in_threads(count):
  results = [None] * count
  barrier = threading.Barrier(count)

  def run(i):
    barrier.wait()
    results[i] = (mixed(i % 4), json_round_trips(100 + i % 4))

  threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  expected = [(mixed(i), json_round_trips(100 + i)) for i in range(4)]
  if results != expected * (count // 4):
    raise SystemExit("threads: not what one thread computes")
  return digest(repr(results))


def in_processes(count):
  context = multiprocessing.get_context("fork")
  with context.Pool(count) as pool:
    results = pool.map(mixed, list(range(8)), chunksize=1)
  return digest(repr(results))


def fork_under_threads(count):
  """Children forked while other threads are in the middle of malloc and free."""
  stop = threading.Event()

  def churn(seed):
    rng = random.Random(seed)
    while not stop.is_set():
      zlib.compress(bytes(rng.randrange(1, 200000)), 1)
      [bytearray(rng.randrange(3000)) for _ in range(200)]

  threads = [threading.Thread(target=churn, args=(i,)) for i in range(3)]
  for thread in threads:
    thread.start()
  answers = []
  for i in range(count):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
      objects = [str(n) * (n % 50) for n in range(20000)]
      os.write(writer, digest("".join(objects) + str(i)).encode())
      os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
      answers.append(pipe.read().decode())
    _, status = os.waitpid(child, 0)
    if status != 0:
      raise SystemExit(f"fork: child {i} ends with status {status}")
  stop.set()
  for thread in threads:
    thread.join()
  return digest(repr(answers))


def worker_threads():
  """Many short-lived threads: the pool is torn down and built again."""
  answers = []
  for round_number in range(20):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      answers += pool.map(lambda n: digest(str(list(range(n)))), range(round_number * 10, 200))
  return digest(repr(answers))


def main():
  sys.setswitchinterval(1e-4)
  print("json", json_round_trips(1))
  print("mixed", mixed(2))
  print("threads", in_threads(8))
  print("short threads", worker_threads())
  print("processes", in_processes(4))
  print("fork under threads", fork_under_threads(20))


if __name__ == "__main__":
  main()
