// tests/autograd/edges.h - NaN and infinities on their way through a function and back: they may
// not get lost, nor turn into numbers that look like any others.
#pragma once

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/ops.h"
#include "tests/autograd/function_cases.h"

namespace murmur {

// The value and the gradients to all inputs, one after the other.
inline std::vector<double> value_and_gradients(const FunctionCase& c) {
  std::vector<Var> leaves;
  for (const Tensor& x : c.inputs) leaves.push_back(Var::leaf(x));
  Tape tape;
  Var y = c.f(leaves);
  Tensor weights(y.shape(), y.value().dtype(), y.value().device());
  ops::random_uniform(7, 0, 0.5, 1.5, weights);
  tape.backward(y, weights);
  std::vector<double> all = to_vector(y.value());
  for (const Var& leaf : leaves) {
    std::vector<double> gradient = to_vector(leaf.gradient());
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

// Whatever depends on an element is NaN where the element is: what changes when it moves up or down
// is taken to depend on it. An infinite element gives what huge ones tend to, or no number.
inline void check_edges(FunctionCase c) {
  CAPTURE(c.name);
  for (size_t i = 0; i < c.inputs.size(); i++) {
    CAPTURE(i);
    Tensor x = c.inputs[i];
    std::vector<double> values = to_vector(x), before = value_and_gradients(c);
    size_t element = values.size() * 5 / 8;
    auto at = [&](double number) {
      std::vector<double> changed = values;
      changed[element] = number;
      c.inputs[i] = to(x.device(), Tensor::of(changed, x.shape(), x.dtype()));
      return value_and_gradients(c);
    };
    double own = values[element], huge = x.dtype() == DType::f64 ? 1e60 : 1e12;
    std::vector<double> up = at(own + 5), down = at(own - 5), nan = at(NAN);
    size_t depend = 0, swallowed = 0, invented = 0;
    for (size_t k = 0; k < before.size(); k++) {
      bool depends = !(up[k] == before[k] && down[k] == before[k]);
      depend += depends;
      swallowed += depends && !std::isnan(nan[k]);
    }
    for (double sign : {1.0, -1.0}) {
      std::vector<double> infinite = at(sign * INFINITY), large = at(sign * huge);
      for (size_t k = 0; k < before.size(); k++) {
        invented += std::isfinite(infinite[k]) &&
                    !(std::fabs(infinite[k] - large[k]) <= 1e-6 * (1 + std::fabs(large[k])));
      }
    }
    c.inputs[i] = x;
    CHECK(depend > 0);
    CHECK(swallowed == 0);
    CHECK(invented == 0);
  }
}

}  // namespace murmur
