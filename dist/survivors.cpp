// dist/survivors.cpp - what becomes of a graph when nodes are lost: edges dropped, or a new graph.
#include <algorithm>

#include "dist/topology.h"
#include "tensor/check.h"

namespace murmur {
namespace {

// New numbers in the order of the old ones; -1: lost.
std::vector<int> renumbered(int nodes, const std::vector<int>& lost) {
  std::vector<int> number(nodes);
  for (int node : lost) {
    check(node >= 0 && node < nodes, "topology: a node was lost that was not there");
    number[node] = -1;
  }
  int next = 0;
  for (int& n : number) n = n < 0 ? -1 : next++;
  return number;
}

Edges edges_among(const Topology& topology, const std::vector<int>& number) {
  Edges edges;
  for (int to = 0; to < topology.nodes(); to++) {
    for (const Topology::In& in : topology.in(0, to)) {
      if (number[to] >= 0 && number[in.peer] >= 0)
        edges.push_back({number[to], number[in.peer], in.weight});
    }
  }
  return edges;
}

// The name that goes on for `nodes`; what was symmetric stays so.
std::string successor(const TopologyOptions& options, const Topology& now, int nodes) {
  const std::string& name = options.name;
  bool power_of_two = (nodes & (nodes - 1)) == 0;
  bool one_peer = name == "one_peer_exponential" || name == "one_peer_hypercube";
  if (one_peer && !power_of_two) return "base2";
  if (name == "hypercube" && !power_of_two) return "torus";
  if (name == "edges") return now.directed() ? "exponential" : "ring";
  return name;
}

}  // namespace

Survivors without(const TopologyOptions& options, const Topology& now,
                  const std::vector<int>& lost) {
  std::vector<int> number = renumbered(now.nodes(), lost);
  int left = int(std::count_if(number.begin(), number.end(), [](int n) { return n >= 0; }));
  check(left > 0, "topology: every node was lost");
  if (left == now.nodes()) return {now, "the whole graph"};
  bool column = options.weights == "column";
  if (now.rounds() == 1 && (column || !now.directed())) {
    Topology rest(left, {edges_among(now, number)}, column ? Completes::column : Completes::row);
    if (connected(rest)) return {rest, "edges dropped"};
  }
  TopologyOptions next = options;
  next.name = successor(options, now, left);
  if (next.name != options.name && !column) next.weights = "auto";
  if (next.name != options.name) next.edges.clear();
  return {make_topology(next, left), "rebuilt as " + next.name};
}

}  // namespace murmur
