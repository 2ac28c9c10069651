// dist/disagreement.h - how far apart the weights of nodes are.
#pragma once

#include "dist/communicator.h"
#include "nn/parameter.h"

namespace murmur {

//   frobenius   sqrt(sum over nodes |x_i - x|^2), x: what they have in common (Strategy::common)
//   spectral    sqrt(sum over tensors |x_i - x of all nodes, stacked|_2^2): the largest singular
//               value for matrices, the length for vectors (as DeMuon's authors measure it). By
//               power iteration: a lower bound, close to the last digits shown
struct Disagreement {
  double frobenius = 0, spectral = 0;
};
Disagreement disagreement(Communicator& c, const Parameters& parameters, const Tensor& common);

}  // namespace murmur
