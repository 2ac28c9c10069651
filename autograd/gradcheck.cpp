// autograd/gradcheck.cpp - f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h + O(h^4)
#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/functions.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Var weighted_sum(const Var& y) {
  if (y.value().numel() == 1) return y;
  Tensor weights(y.shape(), y.value().dtype());
  ops::random_uniform(7, 0, 0.5, 1.5, weights);
  return sum(mul(y, weights));
}

}  // namespace

GradcheckResult gradcheck(const std::string& name,
                          const std::function<Var(const std::vector<Var>&)>& f,
                          const std::vector<Tensor>& inputs, double tolerance, double h) {
  std::vector<Var> leaves;
  for (const Tensor& x : inputs) {
    check(x.dtype() == DType::f64 && x.contiguous(),
          [&] { return "gradcheck: " + name + ": inputs must be fp64, got " + text(x); });
    leaves.push_back(Var::leaf(x));
  }
  {
    Tape tape;
    tape.backward(weighted_sum(f(leaves)));
  }
  GradcheckResult result;
  auto value = [&] { return item(weighted_sum(f(leaves)).value()); };
  for (size_t i = 0; i < inputs.size(); i++) {
    Tensor gradient = leaves[i].gradient();
    std::vector<double> got =
        gradient ? to_vector(gradient) : std::vector<double>(size_t(inputs[i].numel()), 0.0);
    std::vector<double> expected(got.size());
    double square = 0;
    double* x = inputs[i].data<double>();
    for (size_t j = 0; j < got.size(); j++) {
      double keep = x[j];
      auto at = [&](double step) {
        x[j] = keep + step;
        return value();
      };
      expected[j] = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      x[j] = keep;
      square += expected[j] * expected[j];
    }
    double typical = std::sqrt(square / std::max<double>(1, double(got.size())));
    for (size_t j = 0; j < got.size(); j++) {
      double error =
          std::fabs(got[j] - expected[j]) / std::max({std::fabs(expected[j]), typical, 1e-10});
      if (!(error <= result.worst)) result.worst = error;
      if (!(error <= tolerance) && result.ok) {
        result.ok = false;
        result.message = name + ": input " + std::to_string(i) + " [" + std::to_string(j) +
                         "]: gradient " + std::to_string(got[j]) + ", finite difference " +
                         std::to_string(expected[j]) + " (relative error " + std::to_string(error) +
                         ")";
      }
    }
  }
  return result;
}

}  // namespace murmur
