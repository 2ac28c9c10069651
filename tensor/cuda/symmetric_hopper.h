// tensor/cuda/symmetric_hopper.h - products that are known to be symmetric, at half the work.
#pragma once

#include "tensor/ops.h"

namespace murmur::cuda {

// c <- alpha a a^T + beta plus, or alpha a^T a + beta plus when transpose_first; (K, m, n) or
// (m, n), bf16, `plus` empty or symmetric; it may be c. False: nothing was done, because it does
// not apply here (see symmetric_hopper.cu) or the device has no such kernel.
bool symmetric_product(const Tensor& a, bool transpose_first, const Factor& alpha,
                       const Tensor& plus, double beta, Tensor& c);

}  // namespace murmur::cuda
