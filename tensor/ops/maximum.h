// tensor/ops/maximum.h - y = max(a, b); the derivative goes to the larger one, to b where equal.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Maximum {
  template <class F>
  MURMUR_HD static F value(F a, F b) {
    return a > b || a != a ? a : b;  // NaN stays
  }
  template <class F>
  MURMUR_HD static F left(F a, F b) {
    return a > b ? F(1) : F(0);
  }
  template <class F>
  MURMUR_HD static F right(F a, F b) {
    return a > b ? F(0) : F(1);
  }
};

}  // namespace murmur
