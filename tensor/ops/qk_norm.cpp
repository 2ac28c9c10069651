// tensor/ops/qk_norm.cpp - RMS norm of each head of q and k in packed rows q, k, v (Henry et al.,
// 2020), without gain; v passes through. The formulas are those of tensor/ops/norm.cpp.
//
// Each head is a row: 3 H of them for a token.
#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

template <class C>
struct QkNorm {
  int heads;
  C* statistics;  // 0 and rstd of every head of q and k

  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x, const Out<T>& y) const {
    auto row = team.hold(x);
    C rstd = 1;
    if (r.inner < 2 * heads) {
      C square = team.sum([](C v) { return v * v; }, row);
      rstd = C(1) / sqrt_of(square / C(team.size) + C(1e-5));
      int64_t head = r.outer * 2 * heads + r.inner;
      if (team.leads()) {
        statistics[2 * head] = 0;
        statistics[2 * head + 1] = rstd;
      }
    }
    team.each([=](C v, C& to) { to = v * rstd; }, row, y);
  }
};

template <class C>
struct QkNormBackward {
  int heads;
  const C* statistics;

  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x, const In<T>& dy,
                         const Accumulate<T>& dx) const {
    auto slope = team.hold(dy);
    auto to = team.hold(dx);
    if (r.inner >= 2 * heads) return team.each([](C d, C& dv) { dv = d; }, slope, to);
    C rstd = statistics[2 * (r.outer * 2 * heads + r.inner) + 1];
    auto row = team.hold(x);
    C mean_gx = team.sum([=](C v, C d) { return d * (v * rstd); }, row, slope) / C(team.size);
    team.each([=](C v, C d, C& dv) { dv = rstd * (d - v * rstd * mean_gx); }, row, slope, to);
  }
};

Extent head_rows(int64_t heads, const Tensor& qkv) {
  return {qkv.rows() * 3 * heads, qkv.cols() / (3 * heads), int(3 * heads)};
}

}  // namespace

void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) {
  check_heads(heads, qkv);
  check_same(qkv, y);
  Extent e = head_rows(heads, qkv);
  dispatch_kernel(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_row(e, QkNorm<C>{int(heads), statistics.data<C>()}, in<T>(qkv, e), out<T>(y, e));
  });
}

void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics, const Tensor& dy,
                      Into dx) {
  check_heads(heads, qkv);
  check_same(qkv, dy);
  check_same(qkv, dx.tensor);
  Extent e = head_rows(heads, qkv);
  dispatch_kernel(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_row(e, QkNormBackward<C>{int(heads), statistics.data<C>()}, in<T>(qkv, e),
                 in<T>(dy, e), accumulate<T>(dx, e));
  });
}

}  // namespace murmur::MURMUR_DEVICE
