// tensor/ops/softmax.cpp - y = e^(x - max x) / sum e^(x - max x) along a row.
//
//   dx = y (dy - sum y dy)
#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

struct Softmax {
  template <class Team, class X, class Y>
  KERNEL void operator()(const Team& team, Row, const X& x, const Y& y) const {
    using C = typename X::C;
    auto row = team.hold(x);
    auto [m, s] = team.max_sum_exp(team.size, row);
    C top = m, scale = C(1) / s;
    team.each([=](C v, C& p) { p = fast_exp(v - top) * scale; }, row, y);
  }
};

struct SoftmaxBackward {
  template <class Team, class X, class DY, class DX>
  KERNEL void operator()(const Team& team, Row, const X& y, const DY& dy, const DX& dx) const {
    using C = typename X::C;
    auto probability = team.hold(y);
    auto slope = team.hold(dy);
    auto to = team.hold(dx);
    C dot = team.sum([](C p, C d) { return p * d; }, probability, slope);
    team.each([=](C p, C d, C& g) { g = p * (d - dot); }, probability, slope, to);
  }
};

}  // namespace

void softmax(const Tensor& x, Tensor& y) {
  check_same(x, y);
  Extent e = row_extent(x);
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(e, Softmax{}, in<T>(x, e), out<T>(y, e));
  });
}

void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) {
  check_same(y, dy);
  check_same(y, dx.tensor);
  Extent e = row_extent(y);
  dispatch_kernel(y.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(e, SoftmaxBackward{}, in<T>(y, e), in<T>(dy, e), accumulate<T>(dx, e));
  });
}

}  // namespace murmur::MURMUR_DEVICE
