// tensor/ops/gelu.h - Gaussian error linear unit, tanh form (Hendrycks & Gimpel, 2016).
//
//   u = sqrt(2/pi) (x + 0.044715 x^3)        u' = sqrt(2/pi) (1 + 3 0.044715 x^2)
//   y = x/2 (1 + tanh u) = x s               with s = 1 / (1 + e^-2u)
//   y' = s + 2 x s (1 - s) u'
#pragma once

#include "tensor/scalar.h"

namespace murmur {

struct Gelu {
  static constexpr double kRoot = 0.7978845608028654;  // sqrt(2/pi)
  static constexpr double kCubic = 0.044715;

  template <class F>
  MURMUR_HD static F value(F x) {
    F u = F(kRoot) * x * (F(1) + F(kCubic) * x * x);
    return x / (F(1) + exp_of(F(-2) * u));
  }
  template <class F>
  MURMUR_HD static F derivative(F x) {
    F u = F(kRoot) * x * (F(1) + F(kCubic) * x * x);
    F slope = F(kRoot) * (F(1) + F(3 * kCubic) * x * x);
    F s = F(1) / (F(1) + exp_of(F(-2) * u));
    return s + F(2) * x * s * (F(1) - s) * slope;
  }
};

}  // namespace murmur
