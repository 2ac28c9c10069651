// tests/dist/stacked.h - all nodes at once, in plain loops and doubles: X has a row for every node,
// and mixing is a product with a dense matrix. What decentralised strategies are compared with;
// only the weights of W come from where theirs do.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "dist/topology.h"

namespace murmur {

using Row = std::vector<double>;
using Stack = std::vector<Row>;  // [node][element]

inline Stack zeros_like(const Stack& x) { return Stack(x.size(), Row(x[0].size())); }

// a x + b y
inline Stack sum(double a, const Stack& x, double b, const Stack& y) {
  Stack z = x;
  for (size_t i = 0; i < x.size(); i++) {
    for (size_t p = 0; p < x[i].size(); p++) z[i][p] = a * x[i][p] + b * y[i][p];
  }
  return z;
}
inline Stack operator+(const Stack& x, const Stack& y) { return sum(1, x, 1, y); }
inline Stack operator-(const Stack& x, const Stack& y) { return sum(1, x, -1, y); }
inline Stack operator*(double a, const Stack& x) { return sum(a, x, 0, x); }

inline Row mean(const Stack& x) {
  Row m(x[0].size());
  for (const Row& row : x) {
    for (size_t p = 0; p < m.size(); p++) m[p] += row[p] / double(x.size());
  }
  return m;
}

inline double norm(const Row& x) {
  double squares = 0;
  for (double v : x) squares += v * v;
  return std::sqrt(squares);
}

// Frobenius norm of what differs from the mean.
inline double disagreement(const Stack& x) {
  Row m = mean(x);
  double squares = 0;
  for (const Row& row : x) {
    for (size_t p = 0; p < m.size(); p++) squares += (row[p] - m[p]) * (row[p] - m[p]);
  }
  return std::sqrt(squares);
}

inline double largest_difference(const Row& x, const Row& y) {
  double largest = x.size() == y.size() ? 0 : INFINITY;
  for (size_t p = 0; p < x.size() && largest < INFINITY; p++)
    largest = std::isfinite(x[p] - y[p]) ? std::max(largest, std::fabs(x[p] - y[p])) : INFINITY;
  return largest;
}
inline double largest_difference(const Stack& x, const Stack& y) {
  double largest = x.size() == y.size() ? 0 : INFINITY;
  for (size_t i = 0; i < x.size() && largest < INFINITY; i++)
    largest = std::max(largest, largest_difference(x[i], y[i]));
  return largest;
}

// W x, with the dense W of a round.
inline Stack product(const Topology& topology, int round, const Stack& x) {
  Stack y = zeros_like(x);
  for (int i = 0; i < topology.nodes(); i++) {
    for (int j = 0; j < topology.nodes(); j++) {
      double w = topology.weight(round, i, j);
      if (w == 0) continue;
      double* to = y[size_t(i)].data();
      const double* from = x[size_t(j)].data();
      for (size_t p = 0; p < x[0].size(); p++) to[p] += w * from[p];
    }
  }
  return y;
}

// A graph with `rounds` products a step, as its schedule goes.
struct Graph {
  Topology topology;
  int rounds = 1;
  Stack mixed(int64_t step, Stack x) const {
    for (int k = 0; k < rounds; k++)
      x = product(topology, int(((step - 1) * rounds + k) % topology.rounds()), x);
    return x;
  }
};

}  // namespace murmur
