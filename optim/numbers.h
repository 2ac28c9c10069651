// optim/numbers.h - small steps that formulas of optimizers have in common.
#pragma once

#include "tensor/engine.h"

namespace murmur {

inline Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype(), x.device()); }

inline Tensor constant(double value, const Tensor& shaped) {
  Tensor x = like(shaped);
  engine(x.device()).fill(x, value);
  return x;
}

inline void add(double value, Tensor& x) {  // x <- x + value
  engine(x.device()).scale(1, constant(value, x), {x, true});
}

inline void at_least(double value, Tensor& x) {  // x <- max(x, value)
  engine(x.device()).zip(Binary::maximum, x, constant(value, x), x);
}

// (K): the Frobenius norms of the K parts of x, in x's type.
inline Tensor norms(int64_t parts, const Tensor& x) {
  Tensor norm({parts}, x.dtype(), x.device());
  engine(x.device()).sum_of_squares(x, norm);
  engine(x.device()).map(Unary::sqrt, norm, norm);
  return norm;
}

// x <- factor x / divisor, part by part: one divisor for each.
inline void divide_parts(double factor, Tensor divisor, Tensor& x) {
  engine(x.device()).map(Unary::reciprocal, divisor, divisor);
  engine(x.device()).scale({factor, divisor}, x, {x});
}

}  // namespace murmur
