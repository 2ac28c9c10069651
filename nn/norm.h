// nn/norm.h - layer norm or RMS norm with a gain per column, and a bias for the former.
#pragma once

#include "autograd/functions.h"
#include "nn/parameter.h"

namespace murmur {

class NormLayer {
 public:
  NormLayer(Parameters& parameters, const std::string& name, Norm kind, int64_t width, bool bias)
      : kind_(kind),
        gain_(parameters.add(name + ".weight", {width}, Role::vector, 0, 1)),
        bias_(bias ? &parameters.add(name + ".bias", {width}, Role::vector, 0) : nullptr) {}

  Var operator()(const Var& x) const { return norm(kind_, x, gain_.var, bias()); }
  // x + branch, and its norm.
  SumAndNorm add(const Var& x, const Var& branch) const {
    return add_norm(kind_, x, branch, gain_.var, bias());
  }

 private:
  Var bias() const { return bias_ ? bias_->var : Var(); }

  Norm kind_;
  const Parameter& gain_;
  const Parameter* bias_;
};

}  // namespace murmur
