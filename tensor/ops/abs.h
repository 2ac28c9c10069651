// tensor/ops/abs.h - y = |x|, y' = sign of x (0 at 0).
#pragma once

#include "tensor/ops/sign.h"

namespace murmur {

struct Abs {
  template <class F>
  MURMUR_HD static F value(F x) {
    return std::fabs(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return Sign::value(x);
  }
};

}  // namespace murmur
