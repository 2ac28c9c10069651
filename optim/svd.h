// optim/svd.h - exact answers in double precision, on the CPU, slowly: references, and the rare
// factorisation an optimizer needs.
#pragma once

#include "tensor/tensor.h"

namespace murmur {

// U V^T of every matrix U S V^T of a bank (K, m, n), over positive singular values only: a zero
// matrix stays zero, and directions a matrix does not have get nothing.
void polar_factors(const Tensor& bank, Tensor& result);

// Columns: orthonormal eigenvectors of every symmetric, positive semi-definite matrix of a bank
// (K, n, n), largest eigenvalue first.
void eigenvectors(const Tensor& bank, Tensor& result);

}  // namespace murmur
