// optim/numbers.h - small steps that formulas of optimizers have in common.
#pragma once

#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {

inline Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype(), x.device()); }

inline Tensor constant(double value, const Tensor& shaped) {
  Tensor x = like(shaped);
  ops::fill(x, value);
  return x;
}

inline void add(double value, Tensor& x) {  // x <- x + value
  ops::scale(1, constant(value, x), {x, true});
}

inline void at_least(double value, Tensor& x) {  // x <- max(x, value)
  ops::zip(binary::maximum, x, constant(value, x), x);
}

// (K): the Frobenius norms of the K parts of x, in x's type.
inline Tensor norms(int64_t parts, const Tensor& x) {
  Tensor norm({parts}, x.dtype(), x.device());
  ops::sum_of_squares(x, norm);
  ops::map(unary::sqrt, norm, norm);
  return norm;
}

// x <- factor x / divisor, part by part: one divisor for each.
inline void divide_parts(double factor, Tensor divisor, Tensor& x) {
  ops::map(unary::reciprocal, divisor, divisor);
  ops::scale({factor, divisor}, x, {x});
}

}  // namespace murmur
