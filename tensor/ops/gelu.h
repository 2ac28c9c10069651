// tensor/ops/gelu.h - Gaussian error linear unit, tanh form (Hendrycks & Gimpel, 2016).
//
//   u = sqrt(2/pi) (x + 0.044715 x^3)        u' = sqrt(2/pi) (1 + 3 0.044715 x^2)
//   y = x/2 (1 + tanh u) = x s               with s = 1 / (1 + e^-2u)
//   y' = s + x s (1 - s) 2u'                 from e^-2|u|, as in tensor/ops/silu.h
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Gelu {
  static constexpr double kRoot = 0.7978845608028654;  // sqrt(2/pi)
  static constexpr double kCubic = 0.044715;
  static constexpr double kFar = 1000;  // there s is 0 or 1

  template <class F>
  MURMUR_HD static F value(F x) {
    F finite = x < F(-kFar) ? F(-kFar) : x;
    F u = x * (F(2 * kRoot) + F(2 * kRoot * kCubic) * (x * x));
    return finite / (F(1) + exp_of(-u));
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F a = std::fabs(x), finite = a > F(kFar) ? F(kFar) : a;
    F u = a * (F(2 * kRoot) + F(2 * kRoot * kCubic) * (a * a));
    F slope = finite * (F(2 * kRoot) + F(6 * kRoot * kCubic) * (finite * finite));
    F e = exp_of(-u), r = F(1) / (F(1) + e), t = slope * (e * r * r);
    return x < F(0) ? e * r - t : r + t;
  }
};

}  // namespace murmur
