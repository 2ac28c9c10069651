// tensor/formula.h - the formulas of tensor/ops/: value(x) and derivative(x), or value(x, constant)
// and derivative(x, constant) where there is one, with its usual value in kConstant.
#pragma once

#include "tensor/scalar.h"

namespace murmur {

template <class Formula>
constexpr bool kHasConstant = requires { Formula::kConstant; };

template <class Formula, class F>
MURMUR_HD F value_of(F x, F constant) {
  if constexpr (kHasConstant<Formula>) {
    return Formula::value(x, constant);
  } else {
    return Formula::value(x);
  }
}

template <class Formula, class F>
MURMUR_HD F derivative_of(F x, F constant) {
  if constexpr (kHasConstant<Formula>) {
    return Formula::derivative(x, constant);
  } else {
    return Formula::derivative(x);
  }
}

}  // namespace murmur
