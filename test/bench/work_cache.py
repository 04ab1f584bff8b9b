"""A process that runs long: a cache whose entries of many kinds are replaced, and documents that
come and go. What is live stays the same from round to round. Prints a digest."""
import hashlib
import json
import random
import sys
import time

ROUNDS = int(sys.argv[1])
ENTRIES = 20_000
LOOK_S = 0.3  # so long the end can be looked at

rng = random.Random(1)


def entry(number):
  kind = rng.randrange(4)
  if kind == 0:
    return {"id": number, "name": f"entry {number}", "tags": [f"tag{rng.randrange(500)}"
                                                            for _ in range(rng.randrange(20))]}
  if kind == 1:
    return bytes(int(16 * 512 ** rng.random()))
  if kind == 2:
    return tuple(str(rng.random()) for _ in range(rng.randrange(1, 60)))
  return {f"field {i}": float(i) for i in range(rng.randrange(1, 50))}


cache = [entry(number) for number in range(ENTRIES)]
digest = hashlib.sha256()
for round_number in range(ROUNDS):
  for number in range(ENTRIES // 4):
    cache[rng.randrange(ENTRIES)] = entry(number)
  document = [item for item in rng.sample(cache, ENTRIES // 5) if isinstance(item, (dict, tuple))]
  document = json.loads(json.dumps(document))
  digest.update(str(sum(len(item) for item in document)).encode())
print(digest.hexdigest())
time.sleep(LOOK_S)
