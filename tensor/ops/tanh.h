// tensor/ops/tanh.h - hyperbolic tangent: y' = 1 - y^2 = 4 sigmoid'(2 x).
#pragma once

#include "tensor/ops/sigmoid.h"

namespace murmur {

struct Tanh {
  template <class F>
  MURMUR_HD static F value(F x) {
    return tanh_of(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(4) * Sigmoid::derivative(F(2) * x);
  }
};

}  // namespace murmur
