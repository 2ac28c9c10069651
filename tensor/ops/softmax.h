// tensor/ops/softmax.h - y = e^(x - max x) / sum e^(x - max x) along a row.
//
//   dx = y (dy - sum y dy)
#pragma once

#include "tensor/dtype.h"

namespace murmur {

struct Softmax {
  template <class Team, class T>
  MURMUR_HD static void forward(const Team& team, int64_t n, const T* x, T* y) {
    using C = Compute<T>;
    C m = team.max(n, C(-INFINITY), [=](int64_t i) { return C(x[i]); });
    C s = team.template sum<C>(n, [=](int64_t i) { return exp_of(C(x[i]) - m); });
    C scale = C(1) / s;
    team.each(n, [=](int64_t i) { y[i] = T(exp_of(C(x[i]) - m) * scale); });
  }

  template <class Team, class T>
  MURMUR_HD static void backward(const Team& team, int64_t n, const T* y, const T* dy, T* dx,
                                 bool accumulate) {
    using C = Compute<T>;
    C dot = team.template sum<C>(n, [=](int64_t i) { return C(y[i]) * C(dy[i]); });
    if (accumulate) {
      team.each(n, [=](int64_t i) { dx[i] = T(C(dx[i]) + C(y[i]) * (C(dy[i]) - dot)); });
    } else {
      team.each(n, [=](int64_t i) { dx[i] = T(C(y[i]) * (C(dy[i]) - dot)); });
    }
  }
};

}  // namespace murmur
