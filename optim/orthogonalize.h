// optim/orthogonalize.h - the nearest (semi-)orthogonal matrix U V^T of U S V^T, approximately.
#pragma once

#include <string>
#include <vector>

#include "optim/option.h"
#include "tensor/tensor.h"

namespace murmur {

// How: the settings that all optimizers with an orthogonaliser share.
struct Orthogonalization {
  std::string method = "jordan5";  // of orthogonalizers.h
  int64_t steps = 0;               // 0: as many as the method usually does
  // gram: the steps on R = X X^T alone, X itself touched twice. Fewer operations from about 2:1 on,
  // but rounding errors of bf16 grow: see docs/decisions.md.
  std::string form = "standard";
  std::string dtype = "auto";  // what it computes in

  std::vector<Option> options();  // orthogonalizer, ns_steps, ns_form, ns_dtype
  // fp32, bf16; "auto" is bf16 where the processor multiplies that much faster (GPUs, CPUs with
  // AMX) and the method bears it, and else the type of `like`.
  DType type(const Tensor& like) const;
};

// For every matrix of a bank (K, m, n):
//
//   X <- X / (safety |X|_F + eps)            a preconditioned method: then X <- diag(s) X with
//                                            s_i = (sum_j |(X X^T)_ij|)^(-1/2) / safety
//   every step:  A = X X^T;  X <- a X + (b A + c A A) X
//   result <- scale X
//
// on the smaller side: tall matrices use A = X^T X and multiply from the right. A zero matrix stays
// zero. The bank is used up; the result may be of another type, or the bank itself.
//
// Nothing is divided: with X_t = f Y_t, f = 1 / (safety |Y_0|_F + eps), the products A = f^2 Y Y^T
// take the factor along, Y goes through the same steps, and the last scaling multiplies by f.
void orthogonalize(Tensor& bank, const Orthogonalization& how, double scale, Tensor& result);

}  // namespace murmur
