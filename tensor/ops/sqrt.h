// tensor/ops/sqrt.h - y = x^(1/2), y' = 1/(2 y).
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Sqrt {
  template <class F>
  MURMUR_HD static F value(F x) {
    return sqrt_of(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(0.5) / sqrt_of(x);
  }
};

}  // namespace murmur
