// tensor/ops/square.h - y = x^2, y' = 2 x.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Square {
  template <class F>
  MURMUR_HD static F value(F x) {
    return x * x;
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(2) * x;
  }
};

}  // namespace murmur
