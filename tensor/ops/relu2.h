// tensor/ops/relu2.h - squared rectifier (So et al., 2021): y = max(x, 0)^2, y' = 2 max(x, 0).
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Relu2 {
  template <class F>
  MURMUR_HD static F value(F x) {
    F positive = x < F(0) ? F(0) : x;  // NaN stays
    return positive * positive;
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(2) * (x < F(0) ? F(0) : x);
  }
};

}  // namespace murmur
