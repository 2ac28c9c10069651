// tensor/ops/norm.h - layer norm (Ba et al., 2016) and RMS norm (Zhang & Sennrich, 2019), one
// formula.
//
//   mean = sum x / n   (0 for RMS norm)      rstd = (sum (x - mean)^2 / n + eps)^(-1/2)
//   xhat = (x - mean) rstd                   y = xhat gain + bias
//
//   g  = dy gain        dx = rstd (g - [mean g] - xhat mean(g xhat))      [..] only for layer norm
//   dgain = sum over rows of dy xhat         dbias = sum over rows of dy
#pragma once

#include "tensor/dtype.h"

namespace murmur {

template <bool kCentred>
struct RowNorm {
  static constexpr double kEps = 1e-5;

  // statistics[0] = mean, statistics[1] = rstd. gain and bias may be null.
  template <class Team, class T>
  MURMUR_HD static void forward(const Team& team, int64_t n, const T* x, const Compute<T>* gain,
                                const Compute<T>* bias, T* y, Compute<T>* statistics) {
    using C = Compute<T>;
    C mean = 0;
    if constexpr (kCentred) {
      mean = team.template sum<C>(n, [=](int64_t i) { return C(x[i]); }) / C(n);
    }
    C square =
        team.template sum<C>(n, [=](int64_t i) { return (C(x[i]) - mean) * (C(x[i]) - mean); });
    C rstd = C(1) / sqrt_of(square / C(n) + C(kEps));
    statistics[0] = mean;
    statistics[1] = rstd;
    if (gain && bias) {
      team.each(n, [=](int64_t i) { y[i] = T((C(x[i]) - mean) * rstd * gain[i] + bias[i]); });
    } else if (gain) {
      team.each(n, [=](int64_t i) { y[i] = T((C(x[i]) - mean) * rstd * gain[i]); });
    } else {
      team.each(n, [=](int64_t i) { y[i] = T((C(x[i]) - mean) * rstd); });
    }
  }

  template <class Team, class T>
  MURMUR_HD static void backward(const Team& team, int64_t n, const T* x, const Compute<T>* gain,
                                 const Compute<T>* statistics, const T* dy, T* dx,
                                 bool accumulate) {
    using C = Compute<T>;
    C mean = statistics[0], rstd = statistics[1];
    auto g = [=](int64_t i) { return gain ? C(dy[i]) * gain[i] : C(dy[i]); };
    auto xhat = [=](int64_t i) { return (C(x[i]) - mean) * rstd; };
    C mean_g = 0;
    if constexpr (kCentred) mean_g = team.template sum<C>(n, g) / C(n);
    C mean_gx = team.template sum<C>(n, [=](int64_t i) { return g(i) * xhat(i); }) / C(n);
    if (accumulate) {
      team.each(
          n, [=](int64_t i) { dx[i] = T(C(dx[i]) + rstd * (g(i) - mean_g - xhat(i) * mean_gx)); });
    } else {
      team.each(n, [=](int64_t i) { dx[i] = T(rstd * (g(i) - mean_g - xhat(i) * mean_gx)); });
    }
  }
};

using LayerNorm = RowNorm<true>;
using RmsNorm = RowNorm<false>;

}  // namespace murmur
