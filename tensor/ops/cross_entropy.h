// tensor/ops/cross_entropy.h - negative log-likelihood of one target given a row of logits.
//
//   loss = log sum e^x - x[target]        dx = softmax(x) - onehot(target)
//
// The gradient takes the place of the logits: the row is in the cache, and no second row is needed.
#pragma once

#include "tensor/dtype.h"

namespace murmur {

struct CrossEntropy {
  template <class Team, class T>
  MURMUR_HD static Compute<T> row(const Team& team, int64_t n, T* x, int64_t target,
                                  bool to_gradient) {
    using C = Compute<T>;
    C m = team.max(n, C(-INFINITY), [=](int64_t i) { return C(x[i]); });
    C s = team.template sum<C>(n, [=](int64_t i) { return exp_of(C(x[i]) - m); });
    C loss = log_of(s) + (m - C(x[target]));  // small, where an offset is all that is large
    if (to_gradient) {
      C scale = C(1) / s;
      team.each(n, [=](int64_t i) {
        x[i] = T(exp_of(C(x[i]) - m) * scale - (i == target ? C(1) : C(0)));
      });
    }
    return loss;
  }
};

}  // namespace murmur
