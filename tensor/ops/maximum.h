// tensor/ops/maximum.h - y = max(a, b); the derivative goes to the larger one, to b where
// equal. NaN on either side stays NaN.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Maximum {
  template <class F>
  MURMUR_HD static F value(F a, F b) {
    return a > b || a != a ? a : b;
  }
  template <class F>
  MURMUR_HD static F left(F a, F b) {
    return a > b ? F(1) : a <= b ? F(0) : a + b;
  }
  template <class F>
  MURMUR_HD static F right(F a, F b) {
    return a > b ? F(0) : a <= b ? F(1) : a + b;
  }
};

}  // namespace murmur
