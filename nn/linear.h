// nn/linear.h - y = x W^T + b.
#pragma once

#include "autograd/functions.h"
#include "nn/parameter.h"

namespace murmur {

class Linear {
 public:
  // qkv_heads: of a packed projection to queries, keys and values (nn/parameter.h).
  Linear(Parameters& parameters, const std::string& name, int64_t in, int64_t out, bool bias,
         double deviation, int64_t qkv_heads = 0)
      : weight_(add(parameters, name + ".weight", {out, in}, Role::matrix, deviation, qkv_heads)),
        bias_(bias ? &add(parameters, name + ".bias", {out}, Role::vector, 0, qkv_heads)
                   : nullptr) {}

  Var operator()(const Var& x) const { return linear(x, weight(), bias()); }

  Var weight() const { return weight_.var; }
  Var bias() const { return bias_ ? bias_->var : Var(); }
  Tensor largest_scores() const { return weight_.largest_scores; }

 private:
  static const Parameter& add(Parameters& parameters, const std::string& name, Shape shape,
                              Role role, double deviation, int64_t qkv_heads) {
    Parameter& p = parameters.add(name, shape, role, deviation, 0, role == Role::vector);
    p.qkv_heads = qkv_heads;
    return p;
  }

  const Parameter& weight_;  // (out, in)
  const Parameter* bias_;    // (out)
};

}  // namespace murmur
