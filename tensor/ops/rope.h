// tensor/ops/rope.h - rotary position embedding (Su et al., 2021), halves form: the pair (x[j], x[j
// + D/2]) of a head of size D at time t turns by the angle t base^(-2j/D).
//
//   y1 = x1 cos - x2 sin        y2 = x2 cos + x1 sin        backward: the same with -sin
#pragma once

#include "tensor/dtype.h"

namespace murmur {

struct Rope {
  // cosine and sine: D/2 numbers each; direction +1 turns, -1 turns back.
  template <class Team, class T>
  MURMUR_HD static void head(const Team& team, int64_t half, const T* x, const Compute<T>* cosine,
                             const Compute<T>* sine, Compute<T> direction, T* y, bool accumulate) {
    using C = Compute<T>;
    team.each(half, [=](int64_t j) {
      C x1 = C(x[j]), x2 = C(x[j + half]), s = direction * sine[j];
      C old1 = accumulate ? C(y[j]) : C(0), old2 = accumulate ? C(y[j + half]) : C(0);
      y[j] = T(old1 + x1 * cosine[j] - x2 * s);
      y[j + half] = T(old2 + x2 * cosine[j] + x1 * s);
    });
  }
};

}  // namespace murmur
