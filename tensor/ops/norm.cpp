// tensor/ops/norm.cpp - layer norm (Ba et al., 2016) and RMS norm (Zhang & Sennrich, 2019), one
// formula.
//
//   mean = sum x / n   (0 for RMS norm)      rstd = (sum (x - mean)^2 / n + eps)^(-1/2)
//   xhat = (x - mean) rstd                   y = xhat gain + bias
//
//   g  = dy gain        dx = rstd (g - [mean g] - xhat mean(g xhat))      [..] only for layer norm
//   dgain = sum over rows of dy xhat         dbias = sum over rows of dy
#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

template <class C, bool kCentred>
struct NormForward {
  C* statistics;  // mean and rstd of every row

  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x, const OptionalIn<T>& residual,
                         const Out<T>& sum, const OptionalIn<C>& gain, const OptionalIn<C>& bias,
                         const Out<T>& y) const {
    auto row = residual ? team.write(
                              sum, [](C a, C b) { return a + b; }, x, residual.in())
                        : team.hold(x);
    C n = C(team.size), mean = 0;
    if constexpr (kCentred) mean = team.sum([](C v) { return v; }, row) / n;
    C square = team.sum([=](C v) { return (v - mean) * (v - mean); }, row);
    C rstd = C(1) / sqrt_of(square / n + C(1e-5));
    team.each([=](C v, C g, C b, C& to) { to = (v - mean) * rstd * g + b; }, row, gain, bias, y);
    if (team.leads()) {
      statistics[2 * r.index] = mean;
      statistics[2 * r.index + 1] = rstd;
    }
  }
};

// One pass over x and dy: dx row by row, and the row's share of dgain and dbias.
template <class C, bool kCentred>
struct NormBackward {
  const C* statistics;

  template <class Team, class T, class Sum>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x, const OptionalIn<C>& gain,
                         const In<T>& dy, const Accumulate<T>& dx, const Sum& dgain,
                         const Sum& dbias) const {
    C mean = statistics[2 * r.index], rstd = statistics[2 * r.index + 1], n = C(team.size);
    auto row = team.hold(x);
    auto slope = team.hold(dy);
    team.each(
        [=](C v, C d, C& gain_sum, C& bias_sum) {
          gain_sum += d * (v - mean) * rstd;
          bias_sum += d;
        },
        row, slope, dgain, dbias);
    if (!dx) return;
    auto to = team.hold(dx);
    C mean_g = 0;
    if constexpr (kCentred) mean_g = team.sum([](C d, C g) { return d * g; }, slope, gain) / n;
    C mean_gx =
        team.sum([=](C v, C d, C g) { return d * g * ((v - mean) * rstd); }, row, slope, gain) / n;
    team.each(
        [=](C v, C d, C g, C& dv) { dv = rstd * (d * g - mean_g - (v - mean) * rstd * mean_gx); },
        row, slope, gain, to);
  }
};

}  // namespace

void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
          const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) {
  check_same(x, y);
  if (residual) check_same(x, residual), check_same(x, sum);
  check((!gain || gain.numel() == x.cols()) && (!bias || bias.numel() == x.cols()), [&] {
    return "rows of " + text(x) + ", gain " + (gain ? text(gain) : "none") + ", bias " +
           (bias ? text(bias) : "none");
  });
  Extent e = row_extent(x), same{1, x.cols()};
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    auto run = [&](auto f) {
      for_each_row(e, f, in<T>(x, e), optional_in<T>(residual, e), out<T>(sum, e),
                   optional_in<C>(gain, same, 1), optional_in<C>(bias, same), out<T>(y, e));
    };
    C* stats = statistics.data<C>();
    kind == Norm::layer ? run(NormForward<C, true>{stats}) : run(NormForward<C, false>{stats});
  });
}

void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                   const Tensor& dy, Into dx, Into dgain, Into dbias) {
  check_same(x, dy);
  if (dx.tensor) check_same(x, dx.tensor);
  Extent e = row_extent(x);
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    ColumnSums<C> sums(x);
    auto run = [&](auto f) {
      for_each_row(e, f, in<T>(x, e), optional_in<C>(gain, {1, x.cols()}, 1), in<T>(dy, e),
                   accumulate<T>(dx, e), sums[0], sums[1]);
    };
    const C* stats = statistics.data<C>();
    kind == Norm::layer ? run(NormBackward<C, true>{stats}) : run(NormBackward<C, false>{stats});
    sums.finish(dgain, dbias);
  });
}

}  // namespace murmur::MURMUR_DEVICE
