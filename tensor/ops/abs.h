// tensor/ops/abs.h - y = |x|, y' = sign of x.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Abs {
  template <class F>
  MURMUR_HD static F value(F x) {
    return x < F(0) ? -x : x;
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return x < F(0) ? F(-1) : F(1);
  }
};

}  // namespace murmur
