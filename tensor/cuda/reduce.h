// tensor/cuda/reduce.h - the second stage of column sums, for kernels that make the first.
#pragma once

#include "tensor/engine.h"

namespace murmur::cuda {

// first (+)= the sum of partial[0] over its pieces, in order, and second that of partial[1], for a
// partial (1 or 2, pieces, C) in fp32. An Into without a tensor is left out.
void add_pieces(const Tensor& partial, Into first, Into second);

}  // namespace murmur::cuda
