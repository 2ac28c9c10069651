// train/dirichlet.h - random proportions: how one thing is divided among several parties.
#pragma once

#include <cstdint>
#include <vector>

namespace murmur {

// `count` proportions from Dirichlet(alpha, ..., alpha); they add up to 1. With a large alpha all
// are nearly 1 / count, with a small one nearly everything goes to one party. A pure function of
// (seed, stream).
std::vector<double> dirichlet(double alpha, int64_t count, uint64_t seed, uint64_t stream);

}  // namespace murmur
