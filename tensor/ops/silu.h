// tensor/ops/silu.h - sigmoid linear unit, also called swish (Elfwing et al., 2017).
//
//   y = x s        y' = s + x s (1 - s)        with s = 1 / (1 + e^-x)
//
// With e = e^-|x|, from which 1 - s takes no digits, s is 1 / (1 + e) or e / (1 + e), and s (1 - s)
// is e / (1 + e)^2.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Silu {
  static constexpr double kFar = 1000;  // there s is 0 or 1, and infinity times 0 is not yet NaN

  template <class F>
  MURMUR_HD static F value(F x) {
    F finite = x < F(-kFar) ? F(-kFar) : x;
    return finite / (F(1) + exp_of(-x));
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F a = std::fabs(x), finite = a > F(kFar) ? F(kFar) : a;
    F e = exp_of(-a), r = F(1) / (F(1) + e), t = finite * (e * r * r);
    return x < F(0) ? e * r - t : r + t;
  }
};

}  // namespace murmur
