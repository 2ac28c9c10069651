// tensor/ops/exp.h - y = e^x, y' = y.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Exp {
  template <class F>
  MURMUR_HD static F value(F x) {
    return exp_of(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return exp_of(x);
  }
};

}  // namespace murmur
