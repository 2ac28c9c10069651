// dist/topology.h - who hears whom, and with which weight: x <- W x, row by row, w_ij being what
// node i makes of what it hears from j. The only place where weights are computed.
//
// A topology is one function in graphs.cpp and one line in topologies.def; a rule for weights is
// one function in weights.cpp and one line in weights.def. What W is good for: topology_report.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optim/option.h"

namespace murmur {

struct TopologyOptions {
  std::string name = "ring", weights = "auto", edges = "";
  bool lazy = false;         // (I + W) / 2
  double probability = 0.3;  // of an edge of erdos_renyi
  int64_t seed = 1;          // of erdos_renyi
  // "topology", "weights", "lazy_weights", "edges", "edge_probability", "graph_seed": pointers into
  // this object.
  std::vector<Option> options();
};

struct Edge {
  int to, from;
  double weight = 0;  // 0: not decided yet
};
using Edges = std::vector<Edge>;

// What a node's own weight makes up for: its row (it takes in no more and no less than everybody
// gives) or its column (it gives away all it has, as push-sum does).
enum class Completes : uint8_t { row, column };

class Topology {
 public:
  struct In {
    int peer;
    double weight;
  };

  // One list of weighted edges a round; own weights complete rows or columns to 1. Weights as they
  // come: make_topology() is what checks.
  Topology(int nodes, const std::vector<Edges>& rounds, Completes completes = Completes::row);

  // Graphs that change go round: step s, from 1, uses graph (s - 1) mod rounds().
  int nodes() const { return nodes_; }
  int rounds() const { return int(rounds_.size()); }
  bool directed() const { return directed_; }  // some edge has no way back with the same weight
  double weight(int round, int to, int from) const;
  // Whom a node hears, and who hears it: ascending, not itself.
  const std::vector<In>& in(int round, int node) const { return rounds_[round].in[node]; }
  const std::vector<int>& out(int round, int node) const { return rounds_[round].out[node]; }

 private:
  struct Round {
    std::vector<double> own;
    std::vector<std::vector<In>> in;
    std::vector<std::vector<int>> out;
  };
  int nodes_;
  bool directed_ = false;
  std::vector<Round> rounds_;
};

struct TopologyEntry {
  std::string name, summary;
  // The edges of every round, both directions named; those with weights of their own have them.
  std::vector<Edges> (*rounds)(const TopologyOptions&, int nodes);
};
struct WeightsEntry {
  std::string name, summary;
  void (*weigh)(int nodes, std::vector<Edges>& rounds);  // InputError where the rule does not fit
};
const std::vector<TopologyEntry>& topology_list();
const std::vector<WeightsEntry>& weights_list();

// InputError for a name, a number of nodes or a file that does not work, and for a graph that falls
// apart. The result is connected and its rows sum to 1 (with weights `column`: its columns).
Topology make_topology(const TopologyOptions& options, int nodes);

// The graph without nodes that are gone; the others are numbered anew, in order.
//
//   fixed, and symmetric   edges of the lost are dropped, and what was given to them is kept:
//   or weights `column`    columns still sum to 1, and rows where they did
//   all else, or where     made anew for those that are left, by name. What does not exist for
//   that falls apart       their number, or is exact for others only, gives way to a relative:
//                          one_peer_* to base2, hypercube to torus, a user's edges to ring or, if
//                          directed, to exponential
struct Survivors {
  Topology topology;
  std::string done;  // "edges dropped", "rebuilt as base2"
};
Survivors without(const TopologyOptions& options, const Topology& now,
                  const std::vector<int>& lost);

// Of the union of all rounds: everybody hears of everybody in the end.
bool connected(const Topology& topology);

// How torus and grid lay out their nodes, row by row: rows <= columns, as square as possible.
struct GridShape {
  int rows, columns;
};
GridShape grid_shape(int nodes);

}  // namespace murmur
