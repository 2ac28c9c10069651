// nn/linear.h - y = x W^T + b.
#pragma once

#include "autograd/functions.h"
#include "nn/parameter.h"

namespace murmur {

class Linear {
 public:
  Linear(Parameters& parameters, const std::string& name, int64_t in, int64_t out, bool bias,
         double deviation)
      : weight_(parameters.add(name + ".weight", {out, in}, Role::matrix, deviation)),
        bias_(bias ? &parameters.add(name + ".bias", {out}, Role::vector, 0, 0, true) : nullptr) {}

  Var operator()(const Var& x) const { return linear(x, weight(), bias()); }

  Var weight() const { return weight_.var; }
  Var bias() const { return bias_ ? bias_->var : Var(); }

 private:
  const Parameter& weight_;  // (out, in)
  const Parameter* bias_;    // (out)
};

}  // namespace murmur
