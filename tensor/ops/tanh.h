// tensor/ops/tanh.h - hyperbolic tangent: y' = 1 - y^2.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Tanh {
  template <class F>
  MURMUR_HD static F value(F x) {
    return tanh_of(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F y = tanh_of(x);
    return F(1) - y * y;
  }
};

}  // namespace murmur
