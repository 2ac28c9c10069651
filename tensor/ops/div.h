// tensor/ops/div.h - y = a / b; dy/da = 1/b, dy/db = -a/b^2.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Div {
  template <class F>
  MURMUR_HD static F value(F a, F b) {
    return a / b;
  }
  template <class F>
  MURMUR_HD static F left(F, F b) {
    return F(1) / b;
  }
  template <class F>
  MURMUR_HD static F right(F a, F b) {
    return -(a / b) / b;  // b * b may leave the range
  }
};

}  // namespace murmur
