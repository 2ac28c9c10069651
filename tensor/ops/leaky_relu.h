// tensor/ops/leaky_relu.h - rectifier with a slope for what is negative (Maas et al., 2013):
// y = x, or c x where x < 0; y' = 1 or c.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct LeakyRelu {
  static constexpr double kConstant = 0.01;  // c, unless another is given

  template <class F>
  MURMUR_HD static F value(F x, F c) {
    return x < F(0) ? c * x : x;
  }
  template <class F>
  MURMUR_HD static F derivative(F x, F c) {
    return x < F(0) ? c : x == x ? F(1) : x;  // NaN stays
  }
};

}  // namespace murmur
