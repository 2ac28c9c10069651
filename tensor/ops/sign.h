// tensor/ops/sign.h - y = 1, 0 or -1; y' = 0.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Sign {
  template <class F>
  MURMUR_HD static F value(F x) {
    return x > F(0) ? F(1) : (x < F(0) ? F(-1) : x);  // NaN stays
  }
  template <class F>
  MURMUR_HD static F derivative(F) {
    return F(0);
  }
};

}  // namespace murmur
