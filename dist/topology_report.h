// dist/topology_report.h - what a mixing matrix is good for, measured in doubles: checks before a
// run starts, and what `murmur graph` prints.
#pragma once

#include <cstdint>
#include <optional>

#include "dist/spectrum.h"
#include "dist/topology.h"

namespace murmur {

SquareMatrix mixing_matrix(const Topology& topology, int round);
SquareMatrix mixing_product(const Topology& topology);  // of all rounds, the first one rightmost

struct TopologyReport {
  // Of every round, to 1e-12.
  bool row_stochastic, column_stochastic, doubly_stochastic, positive_diagonal, symmetric;
  bool connected;  // strongly, all rounds together

  // How much of the disagreement is left after all rounds of a period: ||W - J||_2, the second
  // singular value, for the (product of) doubly stochastic matrices; nothing can be left longer.
  // For others, which do not lead to the plain mean, the second largest |eigenvalue|: what push-sum
  // gains in the long run.
  double rho;
  double rho_per_round;  // rho^(1 / rounds)
  double gap;            // 1 - rho
  bool exact;            // rho is zero but for rounding: the mean itself after one period
  // Of a symmetric W that stays the same. Strategies say what they need
  // (Decentralised::eigenvalues_above).
  std::optional<double> smallest_eigenvalue;
};
TopologyReport report(const Topology& topology);

// Rounds until disagreement has shrunk to `factor` of itself: ln(1 / factor) / ln(1 / rho), rounded
// up, or the period where that is exact. None where it never does.
std::optional<int64_t> rounds_to(const TopologyReport& report, int period, double factor);
// The same with Chebyshev's acceleration (consensus.h), of a symmetric W that stays the same.
std::optional<int64_t> chebyshev_rounds_to(const TopologyReport& report, double factor);

}  // namespace murmur
