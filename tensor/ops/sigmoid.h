// tensor/ops/sigmoid.h - y = 1 / (1 + e^-x), y' = y (1 - y).
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Sigmoid {
  template <class F>
  MURMUR_HD static F value(F x) {
    return F(1) / (F(1) + exp_of(-x));
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F y = value(x);
    return y * (F(1) - y);
  }
};

}  // namespace murmur
