// autograd/gradcheck.h - compares a function's gradients with finite differences in double.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/var.h"

namespace murmur {

struct GradcheckResult {
  bool ok = true;
  double worst = 0;  // largest relative error seen
  std::string
      message;  // "gelu: input 0 [17]: gradient 0.5, finite difference 0.4 (relative error ..)"
};

// `inputs` are fp64 tensors. A result that is no scalar is multiplied by fixed random numbers and
// summed. Differences are of fourth order, error of order h^4; relative errors are measured against
// the larger of the entry and the root mean square of that input's gradient.
GradcheckResult gradcheck(const std::string& name,
                          const std::function<Var(const std::vector<Var>&)>& f,
                          const std::vector<Tensor>& inputs, double tolerance = 1e-6,
                          double h = 1e-3);

}  // namespace murmur
