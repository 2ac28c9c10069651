// dist/ownership.h - which rank works on which part of the parameters.
//
// An optimizer that looks at whole matrices gets whole matrices. They are dealt out by the cost of
// orthogonalising them, the dearest first, each to the rank with the least work so far (LPT;
// Graham, 1969: at most 4/3 of the best). Matrices of one bank cost the same, so a rank owns
// neighbours of a bank. Elementwise optimizers take rows, which fill up the ranks that own fewer
// elements.
#pragma once

#include "nn/parameter.h"
#include "optim/router.h"

namespace murmur {

struct Owned {
  size_t bank;
  Cut cut;
};
using Ownership = std::vector<std::vector<Owned>>;  // by rank

// banks: whole ones, with the route of each.
Ownership owners(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
                 int ranks);

// Operations of the five steps of Newton-Schulz on the smaller side m of m x n: 20 m^2 n + 10 m^3;
// of all blocks of rows that a matrix of the bank is cut into.
double orthogonalization_flops(const Bank& bank, const Route& route);
// The same of all that a rank owns: those of the ranks.
std::vector<double> orthogonalization_flops(const Ownership& ownership,
                                            const std::vector<Bank>& banks,
                                            const std::vector<const Route*>& routes);

// No division leaves the busiest rank less: the dearest matrix, or an N-th of all.
double least_orthogonalization_flops(const std::vector<Bank>& banks,
                                     const std::vector<const Route*>& routes, int ranks);

// Elements of the flat buffer that these banks fill, with the gaps between them.
int64_t flat_size(const std::vector<Bank>& banks);

// Numbers that the optimizer of a bank remembers about it.
double state_elements(const Bank& bank, const Route& route);

// The rows of every matrix, or the members of a bank of vectors, that `rank` keeps.
Cut even_cut(const Bank& whole, int rank, int ranks);

}  // namespace murmur
