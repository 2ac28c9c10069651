// dist/topology.cpp - the lists, expanded; from a name to weights that are checked.
#include "dist/topology.h"

#include <fmt/format.h>

#include <algorithm>

#include "tensor/check.h"
#include "tensor/nearest.h"

namespace murmur {

#define TOPOLOGY(name, summary) \
  std::vector<Edges> name##_rounds(const TopologyOptions& options, int nodes);
#include "dist/topologies.def"
#undef TOPOLOGY
#define WEIGHTS(name, summary) void weigh_##name(int nodes, std::vector<Edges>& rounds);
#include "dist/weights.def"
#undef WEIGHTS

const std::vector<TopologyEntry>& topology_list() {
  static const std::vector<TopologyEntry> list = {
#define TOPOLOGY(name, summary) {#name, summary, name##_rounds},
#include "dist/topologies.def"
#undef TOPOLOGY
  };
  return list;
}

const std::vector<WeightsEntry>& weights_list() {
  static const std::vector<WeightsEntry> list = {
#define WEIGHTS(name, summary) {#name, summary, weigh_##name},
#include "dist/weights.def"
#undef WEIGHTS
  };
  return list;
}

namespace {

// The first node that is not reached from node 0 along the steps that `next` visits; -1: none.
template <class Next>
int first_unreached(int nodes, Next next) {
  std::vector<char> seen(nodes);
  std::vector<int> open = {0};
  seen[0] = 1;
  while (!open.empty()) {
    int node = open.back();
    open.pop_back();
    next(node, [&](int other) {
      if (!seen[other]) open.push_back(other);
      seen[other] = 1;
    });
  }
  auto missing = std::find(seen.begin(), seen.end(), 0);
  return missing == seen.end() ? -1 : int(missing - seen.begin());
}

int never_hears_of_0(const Topology& t) {
  return first_unreached(t.nodes(), [&](int node, auto visit) {
    for (int r = 0; r < t.rounds(); r++) {
      for (int other : t.out(r, node)) visit(other);
    }
  });
}

int never_heard_of_by_0(const Topology& t) {
  return first_unreached(t.nodes(), [&](int node, auto visit) {
    for (int r = 0; r < t.rounds(); r++) {
      for (const Topology::In& in : t.in(r, node)) visit(in.peer);
    }
  });
}

void want_connected(const TopologyOptions& options, const Topology& t) {
  int deaf = never_hears_of_0(t), mute = never_heard_of_by_0(t);
  if (deaf < 0 && mute < 0) return;
  throw InputError(
      fmt::format("topology: of the {} nodes of {}, node {} never hears of node {}; add edges",
                  t.nodes(), options.name == "edges" ? "'" + options.edges + "'" : options.name,
                  deaf < 0 ? 0 : deaf, deaf < 0 ? mute : 0));
}

}  // namespace

std::vector<Option> TopologyOptions::options() {
  return {{.name = "topology",
           .value = &name,
           .summary = "who hears whom; see murmur list topologies",
           .choices = names_of(topology_list())},
          {.name = "weights",
           .value = &weights,
           .summary = "what is made of what is heard; see murmur list weights",
           .choices = names_of(weights_list())},
          {.name = "lazy_weights",
           .value = &lazy,
           .summary = "(I + W) / 2: slower, without eigenvalues below 0"},
          {.name = "edges",
           .value = &edges,
           .summary = "file of topology edges: lines `i j` or `i j weight`"},
          {.name = "edge_probability",
           .value = &probability,
           .summary = "of each pair in topology erdos_renyi",
           .low = 0,
           .high = 1},
          {.name = "graph_seed",
           .value = &seed,
           .summary = "of the draws of topology erdos_renyi",
           .low = 0}};
}

Topology::Topology(int nodes, const std::vector<Edges>& rounds, Completes completes)
    : nodes_(nodes), rounds_(std::max<size_t>(1, rounds.size())) {
  for (size_t r = 0; r < rounds_.size(); r++) {
    Round& round = rounds_[r];
    round.own.assign(nodes, 1);
    round.in.resize(nodes);
    round.out.resize(nodes);
    if (r >= rounds.size()) continue;  // a world without edges is one round of nothing
    for (const Edge& edge : rounds[r]) {
      round.in[edge.to].push_back({edge.from, edge.weight});
      round.out[edge.from].push_back(edge.to);
    }
    for (auto& in : round.in)
      std::sort(in.begin(), in.end(), [](const In& a, const In& b) { return a.peer < b.peer; });
    for (auto& out : round.out) std::sort(out.begin(), out.end());
    std::vector<double> given(nodes);  // summed in order of the peers, so always the same bits
    for (int to = 0; to < nodes; to++) {
      for (const In& in : round.in[to])
        given[completes == Completes::row ? to : in.peer] += in.weight;
    }
    for (int node = 0; node < nodes; node++) round.own[node] = 1 - given[node];
  }
  for (int r = 0; r < this->rounds(); r++) {
    for (int to = 0; to < nodes; to++) {
      for (const In& edge : in(r, to)) directed_ |= weight(r, edge.peer, to) != edge.weight;
    }
  }
}

double Topology::weight(int round, int to, int from) const {
  if (to == from) return rounds_[round].own[to];
  const std::vector<In>& row = in(round, to);
  auto found = std::lower_bound(row.begin(), row.end(), from,
                                [](const In& in, int peer) { return in.peer < peer; });
  return found != row.end() && found->peer == from ? found->weight : 0;
}

bool connected(const Topology& t) { return never_hears_of_0(t) < 0 && never_heard_of_by_0(t) < 0; }

Topology make_topology(const TopologyOptions& options, int nodes) {
  const TopologyEntry& entry = find_named("topology", topology_list(), options.name);
  const WeightsEntry& rule = find_named("weights", weights_list(), options.weights);
  if (nodes < 1)
    throw InputError(fmt::format("nodes: {} of them make no graph; give 1 or more", nodes));
  if (!options.edges.empty() && options.name != "edges") {
    throw InputError(fmt::format("edges: '{}' is for topology edges, not for {}; name one of them",
                                 options.edges, options.name));
  }
  std::vector<Edges> rounds = entry.rounds(options, nodes);
  rule.weigh(nodes, rounds);
  for (Edges& round : rounds) {
    for (Edge& edge : round) edge.weight *= options.lazy ? 0.5 : 1;
  }
  Topology made(nodes, rounds, rule.name == "column" ? Completes::column : Completes::row);
  want_connected(options, made);
  return made;
}

}  // namespace murmur
