// tensor/ops/silu.h - sigmoid linear unit, also called swish (Elfwing et al., 2017).
//
//   y = x s        y' = s (1 + x (1 - s))        with s = 1 / (1 + e^-x)
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Silu {
  template <class F>
  MURMUR_HD static F value(F x) {
    return x / (F(1) + exp_of(-x));
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F s = F(1) / (F(1) + exp_of(-x));
    return s * (F(1) + x * (F(1) - s));
  }
};

}  // namespace murmur
