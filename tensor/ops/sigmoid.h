// tensor/ops/sigmoid.h - y = 1 / (1 + e^-x), y' = y (1 - y).
//
// As e / (1 + e)^2 with e = e^-|x|, the derivative keeps its digits where 1 - y loses them all.
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
    F e = exp_of(-std::fabs(x)), r = F(1) / (F(1) + e);
    return e * r * r;
  }
};

}  // namespace murmur
