// tensor/ops/reciprocal.h - y = 1/x, y' = -y^2.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Reciprocal {
  template <class F>
  MURMUR_HD static F value(F x) {
    return F(1) / x;
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(-1) / (x * x);
  }
};

}  // namespace murmur
