// dist/consensus.h - averaging on a graph, tried on random values: how much disagreement is left
// after every round.
#pragma once

#include <vector>

#include "dist/topology.h"

namespace murmur {

// ||x_k - mean|| / ||x_0 - mean|| for k = 0 .. rounds, from normally distributed x_0.

// x <- W x. With push-sum, for a W of which only the columns sum to 1: also s <- W s from s = 1,
// and x / s is what counts.
std::vector<double> gossip_errors(const Topology& topology, int rounds, bool push_sum = false);

// For a symmetric W that stays the same, with rho = ||W - J||, below 1 and above 0:
//   x_1 = W x_0;  x_{k + 1} = (2 a_k / (rho a_{k + 1})) W x_k - (a_{k - 1} / a_{k + 1}) x_{k - 1}
// where a_k = T_k(1 / rho). At most 1 / a_k is left, about sqrt(1 / gap) fewer rounds.
std::vector<double> chebyshev_errors(const Topology& topology, double rho, int rounds);

}  // namespace murmur
