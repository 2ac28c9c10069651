// tensor/ops/add.h - y = a + b; dy/da = 1, dy/db = 1.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Add {
  template <class F>
  MURMUR_HD static F value(F a, F b) {
    return a + b;
  }
  template <class F>
  MURMUR_HD static F left(F, F) {
    return F(1);
  }
  template <class F>
  MURMUR_HD static F right(F, F) {
    return F(1);
  }
};

}  // namespace murmur
