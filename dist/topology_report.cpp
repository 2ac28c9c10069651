// dist/topology_report.cpp - sums, signs and eigenvalues of W.
#include "dist/topology_report.h"

#include <algorithm>
#include <cmath>

namespace murmur {
namespace {

constexpr double kRounding = 1e-12;

bool is_one(double x) { return std::fabs(x - 1) <= kRounding; }

bool columns_sum_to_one(const Topology& t, int round) {
  std::vector<double> sums(t.nodes());
  for (int to = 0; to < t.nodes(); to++) {
    sums[to] += t.weight(round, to, to);
    for (const Topology::In& in : t.in(round, to)) sums[in.peer] += in.weight;
  }
  return std::all_of(sums.begin(), sums.end(), is_one);
}

bool rows_sum_to_one(const Topology& t, int round) {
  for (int to = 0; to < t.nodes(); to++) {
    double sum = t.weight(round, to, to);
    for (const Topology::In& in : t.in(round, to)) sum += in.weight;
    if (!is_one(sum)) return false;
  }
  return true;
}

// m (I - J). Where columns sum to 1, that is m on vectors of sum zero, from which it does not lead
// out: the eigenvalue 1 is gone and all others are there.
SquareMatrix without_row_means(SquareMatrix m) {
  for (int i = 0; i < m.size; i++) {
    double mean = 0;
    for (int j = 0; j < m.size; j++) mean += m(i, j) / m.size;
    for (int j = 0; j < m.size; j++) m(i, j) -= mean;
  }
  return m;
}

}  // namespace

SquareMatrix mixing_matrix(const Topology& t, int round) {
  SquareMatrix w(t.nodes());
  for (int to = 0; to < t.nodes(); to++) {
    w(to, to) = t.weight(round, to, to);
    for (const Topology::In& in : t.in(round, to)) w(to, in.peer) = in.weight;
  }
  return w;
}

SquareMatrix mixing_product(const Topology& t) {
  SquareMatrix product = mixing_matrix(t, 0);
  for (int round = 1; round < t.rounds(); round++) {
    SquareMatrix before = product;
    for (int to = 0; to < t.nodes(); to++) {
      double *row = product.row(to), own = t.weight(round, to, to);
      for (int j = 0; j < t.nodes(); j++) row[j] *= own;
      for (const Topology::In& in : t.in(round, to)) {
        const double* from = before.row(in.peer);
        for (int j = 0; j < t.nodes(); j++) row[j] += in.weight * from[j];
      }
    }
  }
  return product;
}

TopologyReport report(const Topology& t) {
  TopologyReport r{};
  r.row_stochastic = r.column_stochastic = r.positive_diagonal = true;
  for (int round = 0; round < t.rounds(); round++) {
    r.row_stochastic &= rows_sum_to_one(t, round);
    r.column_stochastic &= columns_sum_to_one(t, round);
    for (int node = 0; node < t.nodes(); node++)
      r.positive_diagonal &= t.weight(round, node, node) > 0;
  }
  r.doubly_stochastic = r.row_stochastic && r.column_stochastic;
  r.symmetric = !t.directed();
  r.connected = connected(t);
  if (t.rounds() == 1 && r.symmetric) {
    Tridiagonal w = tridiagonal(mixing_matrix(t, 0));
    r.smallest_eigenvalue = eigenvalue(w, 0);
    if (t.nodes() > 1)
      r.rho = std::max(std::fabs(*r.smallest_eigenvalue), std::fabs(eigenvalue(w, t.nodes() - 2)));
  } else {
    SquareMatrix product = mixing_product(t);
    if (!r.column_stochastic) product = transposed(product);
    product = without_row_means(std::move(product));
    r.rho = r.doubly_stochastic ? largest_singular_value(product) : spectral_radius(product);
  }
  r.exact = r.rho < kRounding;
  r.rho_per_round = std::pow(r.rho, 1.0 / t.rounds());
  r.gap = 1 - r.rho;
  return r;
}

std::optional<int64_t> rounds_to(const TopologyReport& r, int period, double factor) {
  if (r.exact) return period;
  if (!(r.rho_per_round < 1 - kRounding)) return {};
  return int64_t(std::ceil(std::log(1 / factor) / std::log(1 / r.rho_per_round) - 1e-9));
}

// The bound is 1 / T_K(1 / rho), with Chebyshev's polynomial T_K(x) = cosh(K arcosh x).
std::optional<int64_t> chebyshev_rounds_to(const TopologyReport& r, double factor) {
  if (!r.smallest_eigenvalue || !(r.rho < 1 - kRounding)) return {};
  if (r.exact) return 1;
  return int64_t(std::ceil(std::acosh(1 / factor) / std::acosh(1 / r.rho) - 1e-9));
}

}  // namespace murmur
