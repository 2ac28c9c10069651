// tensor/ops/mul.h - y = a b; dy/da = b, dy/db = a.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Mul {
  template <class F>
  MURMUR_HD static F value(F a, F b) {
    return a * b;
  }
  template <class F>
  MURMUR_HD static F left(F, F b) {
    return b;
  }
  template <class F>
  MURMUR_HD static F right(F a, F) {
    return a;
  }
};

}  // namespace murmur
