// optim/orthogonalize.h - the nearest (semi-)orthogonal matrix U V^T of U S V^T, approximately.
#pragma once

#include "tensor/tensor.h"

namespace murmur {

// Quintic Newton-Schulz on every matrix of a bank (K, m, n), in place:
//
//   X <- X / (|X|_F + eps)
//   five times:  A = X X^T;  X <- a X + (b A + c A A) X     (a, b, c) = (3.4445, -4.7750, 2.0315)
//
// on the smaller side: tall matrices use A = X^T X and multiply from the right. Singular values end
// in about [0.68, 1.14] (Jordan et al., 2024). A zero matrix stays zero.
void newton_schulz(Tensor& bank, int steps = 5, double eps = 1e-7);

}  // namespace murmur
