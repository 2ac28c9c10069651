// dist/weights.cpp - rules of weights.def: from edges to weights. A node's own weight is what is
// left.
#include <fmt/format.h>

#include <algorithm>

#include "dist/spectrum.h"
#include "dist/topology.h"
#include "tensor/check.h"

namespace murmur {
namespace {

struct Degrees {
  std::vector<int> in, out;  // without the node itself
};

Degrees degrees_of(int nodes, const Edges& edges) {
  Degrees degrees{std::vector<int>(nodes), std::vector<int>(nodes)};
  for (const Edge& edge : edges) degrees.in[edge.to]++, degrees.out[edge.from]++;
  return degrees;
}

bool weighted(const Edges& edges) {
  return std::any_of(edges.begin(), edges.end(), [](const Edge& e) { return e.weight != 0; });
}

bool symmetric(const Edges& edges) {
  std::vector<std::pair<int, int>> there, back;
  for (const Edge& edge : edges) {
    there.emplace_back(edge.to, edge.from);
    back.emplace_back(edge.from, edge.to);
  }
  std::sort(there.begin(), there.end());
  std::sort(back.begin(), back.end());
  return there == back;
}

void want_symmetric(const std::string& rule, const Edges& edges) {
  if (symmetric(edges)) return;
  throw InputError("weights: " + rule +
                   " wants edges that go both ways; use auto, or column with push-sum");
}

// 2 / (smallest + largest eigenvalue of L, but for its 0): no other constant has a smaller rho.
double best_constant(int nodes, const Edges& edges) {
  SquareMatrix laplacian(nodes);
  for (const Edge& edge : edges) {
    laplacian(edge.to, edge.from) = -1;
    laplacian(edge.to, edge.to) += 1;
  }
  Tridiagonal t = tridiagonal(std::move(laplacian));
  return 2 / (eigenvalue(t, 1) + eigenvalue(t, nodes - 1));
}

}  // namespace

void weigh_metropolis(int nodes, std::vector<Edges>& rounds) {
  for (Edges& edges : rounds) {
    want_symmetric("metropolis", edges);
    std::vector<int> degree = degrees_of(nodes, edges).in;
    for (Edge& edge : edges) edge.weight = 1.0 / (1 + std::max(degree[edge.to], degree[edge.from]));
  }
}

void weigh_max_degree(int nodes, std::vector<Edges>& rounds) {
  for (Edges& edges : rounds) {
    Degrees degrees = degrees_of(nodes, edges);
    for (int node = 0; node < nodes; node++) {
      if (degrees.in[node] == degrees.out[node]) continue;
      throw InputError(fmt::format(
          "weights: node {} hears {} and is heard by {}, so equal weights would not keep the mean; "
          "give every edge a weight, or use column with push-sum",
          node, degrees.in[node], degrees.out[node]));
    }
    int most = *std::max_element(degrees.in.begin(), degrees.in.end());
    for (Edge& edge : edges) edge.weight = 1.0 / (1 + most);
  }
}

void weigh_auto(int nodes, std::vector<Edges>& rounds) {
  for (Edges& edges : rounds) {
    if (weighted(edges)) continue;
    std::vector<Edges> one = {std::move(edges)};
    symmetric(one[0]) ? weigh_metropolis(nodes, one) : weigh_max_degree(nodes, one);
    edges = std::move(one[0]);
  }
}

void weigh_laplacian(int nodes, std::vector<Edges>& rounds) {
  if (rounds.size() > 1)
    throw InputError("weights: laplacian is for a graph that stays the same; use auto");
  for (Edges& edges : rounds) {
    if (edges.empty()) continue;
    want_symmetric("laplacian", edges);
    double weight = best_constant(nodes, edges);
    for (Edge& edge : edges) edge.weight = weight;
  }
}

// Weights that edges have already are kept: they are then taken to belong to their columns.
void weigh_column(int nodes, std::vector<Edges>& rounds) {
  for (Edges& edges : rounds) {
    if (weighted(edges)) continue;
    std::vector<int> listeners = degrees_of(nodes, edges).out;
    for (Edge& edge : edges) edge.weight = 1.0 / (1 + listeners[edge.from]);
  }
}

}  // namespace murmur
