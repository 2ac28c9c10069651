// dist/graphs.cpp - the edges of every topology of topologies.def, but for base2 and a user's file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "dist/topology.h"
#include "tensor/check.h"

namespace murmur {
namespace {

void connect(Edges& edges, int a, int b) {
  edges.push_back({a, b});
  edges.push_back({b, a});
}

// Links of every node to the next one along a line of `count`, `stride` numbers apart.
void line(Edges& edges, int first, int stride, int count, bool closed) {
  for (int i = 0; i + 1 < count; i++) connect(edges, first + i * stride, first + (i + 1) * stride);
  if (closed && count > 2) connect(edges, first + (count - 1) * stride, first);
}

Edges lattice(int nodes, bool closed) {
  auto [rows, columns] = grid_shape(nodes);
  Edges edges;
  for (int r = 0; r < rows; r++) line(edges, r * columns, 1, columns, closed);
  for (int c = 0; c < columns; c++) line(edges, c, columns, rows, closed);
  return edges;
}

// ceil(log2 nodes)
int digits(int nodes) {
  int count = 0;
  while ((1 << count) < nodes) count++;
  return count;
}

void want_power_of_two(const std::string& name, const std::string& instead, int nodes) {
  if ((nodes & (nodes - 1)) == 0) return;
  throw InputError(
      fmt::format("topology: {} wants a power of two, not {} nodes; use {}", name, nodes, instead));
}

// Everybody hears the node `step` numbers before it, or after it where `step` is negative.
void shift(Edges& edges, int nodes, int step, double weight = 0) {
  for (int to = 0; to < nodes; to++) edges.push_back({to, (to + nodes - step) % nodes, weight});
}

Edges partners(int nodes, int digit) {
  Edges edges;
  for (int node = 0; node < nodes; node++) edges.push_back({node, node ^ (1 << digit)});
  return edges;
}

}  // namespace

GridShape grid_shape(int nodes) {
  int rows = int(std::sqrt(double(nodes)));
  while (nodes % rows != 0) rows--;
  return {rows, nodes / rows};
}

std::vector<Edges> ring_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  line(edges, 0, 1, nodes, true);
  return {edges};
}

std::vector<Edges> path_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  line(edges, 0, 1, nodes, false);
  return {edges};
}

std::vector<Edges> torus_rounds(const TopologyOptions&, int nodes) {
  return {lattice(nodes, true)};
}

std::vector<Edges> grid_rounds(const TopologyOptions&, int nodes) {
  return {lattice(nodes, false)};
}

std::vector<Edges> star_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  for (int node = 1; node < nodes; node++) connect(edges, 0, node);
  return {edges};
}

std::vector<Edges> complete_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  for (int a = 0; a < nodes; a++) {
    for (int b = a + 1; b < nodes; b++) connect(edges, a, b);
  }
  return {edges};
}

std::vector<Edges> hypercube_rounds(const TopologyOptions&, int nodes) {
  want_power_of_two("hypercube", "torus or exponential", nodes);
  Edges edges;
  for (int k = 0; k < digits(nodes); k++) {
    for (const Edge& edge : partners(nodes, k)) edges.push_back(edge);
  }
  return {edges};
}

std::vector<Edges> exponential_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  for (int k = 0; k < digits(nodes); k++) shift(edges, nodes, 1 << k);
  return {edges};
}

// graph.py of DeMuon's authors counts the node itself as one of those it hears, and 1 more:
// N = 8: W = (2/5) I + (1/5) (P + P^2 + P^4) instead of (1/4) (I + P + P^2 + P^4).
std::vector<Edges> exponential_demuon_rounds(const TopologyOptions&, int nodes) {
  Edges edges;
  for (int k = 0; k < digits(nodes); k++) shift(edges, nodes, -(1 << k), 1.0 / (digits(nodes) + 2));
  return {edges};
}

std::vector<Edges> one_peer_exponential_rounds(const TopologyOptions&, int nodes) {
  std::vector<Edges> rounds(digits(nodes));
  for (size_t k = 0; k < rounds.size(); k++) shift(rounds[k], nodes, 1 << k);
  return rounds;
}

std::vector<Edges> one_peer_hypercube_rounds(const TopologyOptions&, int nodes) {
  want_power_of_two("one_peer_hypercube", "base2", nodes);
  std::vector<Edges> rounds;
  for (int k = 0; k < digits(nodes); k++) rounds.push_back(partners(nodes, k));
  return rounds;
}

std::vector<Edges> erdos_renyi_rounds(const TopologyOptions& options, int nodes) {
  constexpr int kDraws = 1000;
  std::mt19937_64 random{uint64_t(options.seed)};
  for (int draw = 0; draw < kDraws; draw++) {
    Edges edges;
    for (int a = 0; a < nodes; a++) {
      for (int b = a + 1; b < nodes; b++) {
        double uniform = double(random() >> 11) * 0x1p-53;
        if (uniform < options.probability) connect(edges, a, b);
      }
    }
    if (connected(Topology(nodes, {edges}))) return {edges};
  }
  throw InputError(fmt::format(
      "edge_probability: none of {} graphs drawn with {} connects {} nodes; raise it above {:.2g}",
      kDraws, options.probability, nodes, std::min(1.0, std::log(nodes) / nodes)));
}

}  // namespace murmur
