// tensor/ops/log.h - y = ln x, y' = 1/x.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Log {
  template <class F>
  MURMUR_HD static F value(F x) {
    return log_of(x);
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    return F(1) / x;
  }
};

}  // namespace murmur
