"""Dictionaries, strings and tuples that come and go: counts words, joins, sorts. Prints a digest."""
import collections
import hashlib
import random
import sys

ROUNDS = int(sys.argv[1])

rng = random.Random(1)
words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(30_000)]
total = hashlib.sha256()
for number in range(ROUNDS):
  index = collections.defaultdict(list)
  for place, word in enumerate(words):
    index[word].append((place, f"{word}:{number}"))
  by_length = {}
  for word, places in index.items():
    by_length.setdefault(len(word), {})[word + str(number)] = dict(places)
  for length in sorted(by_length):
    names = sorted(by_length[length])
    total.update(f"{length}:{len(names)}:{names[0]}:{names[-1]}".encode())
  by_length.pop(5)
print(total.hexdigest())
