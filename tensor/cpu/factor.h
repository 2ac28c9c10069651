// tensor/cpu/factor.h - a Factor as the number it is: here both its parts are at hand.
#pragma once

#include "tensor/ops.h"  // Factor

namespace murmur {

// Of part k.
inline double value_of(const Factor& factor, int64_t k = 0) {
  if (!factor.by) return factor.value;
  if (factor.by.dtype() == DType::f64) return factor.value * factor.by.data<double>()[k];
  return factor.value * double(factor.by.data<float>()[k]);
}

}  // namespace murmur
