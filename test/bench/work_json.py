"""json in and out: builds a document, writes and reads it a few times. Prints a digest."""
import hashlib
import json
import random
import sys

ROUNDS = int(sys.argv[1])

rng = random.Random(1)
document = [{"id": i, "name": f"item {i}", "tags": [f"tag{rng.randrange(500)}" for _ in range(6)],
             "price": rng.random(), "sizes": {str(n): rng.randrange(10 ** 6) for n in range(5)}}
            for i in range(4000)]
text = ""
for indent in [None, 1] * ROUNDS:
  text = json.dumps(document, indent=indent)
  document = json.loads(text)
print(hashlib.sha256(text.encode()).hexdigest())
