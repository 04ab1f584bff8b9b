// Trees of small nodes, built whole, walked, and torn down in the order of their keys, so that each
// node has gone cold by the time it is freed. Several trees grow at once, and their nodes mix.
//
//   trees [--threads=1] [--depth=17] [--count=nodes over all threads]
#include <atomic>

#include "bench.h"

namespace {

constexpr std::size_t kTrees = 4;  // that grow at once; a tree's nodes have one size
constexpr std::size_t kNodeBytes[kTrees] = {24, 32, 48, 80};

struct Node {
  Node* left;
  Node* right;
  std::uint64_t key;
};
static_assert(sizeof(Node) <= kNodeBytes[0]);

struct Forest {
  Node* trees[kTrees];
};

// Trees of this depth, all of them node by node in turn. Keys are numbers of a heap's nodes.
Forest build(std::size_t depth, std::uint64_t key) {
  Forest forest{};
  for (std::size_t i = 0; i < kTrees; i++) {
    forest.trees[i] = static_cast<Node*>(std::malloc(kNodeBytes[i]));
    *forest.trees[i] = {nullptr, nullptr, key};
  }
  if (depth > 1) {
    const Forest left = build(depth - 1, 2 * key);
    const Forest right = build(depth - 1, 2 * key + 1);
    for (std::size_t i = 0; i < kTrees; i++) {
      forest.trees[i]->left = left.trees[i];
      forest.trees[i]->right = right.trees[i];
    }
  }
  return forest;
}

std::uint64_t sum_of_keys(const Node* node) {
  return node == nullptr ? 0 : node->key + sum_of_keys(node->left) + sum_of_keys(node->right);
}

void tear_down(Node* node) {
  if (node != nullptr) {
    tear_down(node->left);
    Node* right = node->right;
    std::free(node);
    tear_down(right);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options(argc, argv);
  const std::size_t threads = options.threads(1);
  const std::size_t depth = options.whole("depth", 17);
  bench::check(depth > 0 && depth < 32, "--depth must be 1 to 31");
  const std::uint64_t nodes = (std::uint64_t{1} << depth) - 1;  // of one tree
  const std::uint64_t rounds = options.scaled("count", 3'000'000) / threads / nodes / kTrees + 1;
  options.finish();

  std::atomic<std::uint64_t> total{0};
  bench::run_threads(threads, [&](std::size_t) {
    for (std::uint64_t round = 0; round < rounds; round++) {
      const Forest forest = build(depth, 1);
      for (Node* tree : forest.trees) {
        const std::uint64_t sum = sum_of_keys(tree);
        bench::check(sum == nodes * (nodes + 1) / 2, "a node does not hold what was written");
        total += sum;
      }
      for (Node* tree : forest.trees) {
        tear_down(tree);
      }
    }
  });
  bench::report("checksum", total);
}
