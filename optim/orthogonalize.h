// optim/orthogonalize.h - the nearest (semi-)orthogonal matrix U V^T of U S V^T, approximately.
#pragma once

#include <string>

#include "tensor/tensor.h"

namespace murmur {

struct NewtonSchulz {
  int steps = 5;
  // Gram: the steps on R = X X^T alone, X itself touched twice. Fewer operations from about 2:1 on,
  // but rounding errors of bf16 grow: see docs/decisions.md.
  bool gram = false;
  double eps = 1e-7;
};

// Quintic Newton-Schulz on every matrix of a bank (K, m, n):
//
//   X <- X / (|X|_F + eps)
//   `steps` times:  A = X X^T;  X <- a X + (b A + c A A) X     (a, b, c) = (3.4445,
//   -4.7750, 2.0315) result <- scale X
//
// on the smaller side: tall matrices use A = X^T X and multiply from the right. Singular values end
// in about [0.68, 1.14] (Jordan et al., 2024). A zero matrix stays zero. The bank is used up; the
// result may be of another type.
//
// Nothing is divided: with X_t = f Y_t, f = 1 / (|Y_0|_F + eps), the products A = f^2 Y Y^T take
// the factor along, Y goes through the same steps, and the last scaling multiplies by f.
void newton_schulz(Tensor& bank, const NewtonSchulz& how, double scale, Tensor& result);

// The type it computes in: "auto" is bf16 on a GPU and the type of `like` elsewhere.
DType orthogonal_type(const std::string& choice, const Tensor& like);

}  // namespace murmur
