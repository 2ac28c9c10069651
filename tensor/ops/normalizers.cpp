// tensor/ops/normalizers.cpp - numbers that bring a tensor, or the matrices of a bank, to a length.
#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"

namespace murmur::MURMUR_DEVICE {
namespace {

struct ClipFactor {
  double limit;
  bool exactly;
  template <class T>
  KERNEL void operator()(double squares, T& factor) const {
    double norm = sqrt(squares), f = limit / (norm + 1e-6);
    f = f > 1 ? 1 : f;  // NaN stays
    factor = T(!exactly ? f : norm == 0 ? 0 : limit / norm);
  }
};

// A row is a matrix. It stays as it is unless its factor is close to the ends of what fp32 can
// hold: then its elements are multiplied by a power of two, which changes no digit of them.
template <class C>
struct Normalizers {
  const double* squares;
  double eps;
  C *f, *squared;

  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const InOut<T>& matrix) const {
    double factor = 1 / (sqrt(squares[r.index]) + eps);
    if ((factor > 0 && factor < 1e-12) || factor > 1e12) {  // 0: infinite, and stays so
      int exponent = ilogb(factor < 1e300 ? factor : 1e300);
      // In halves: the whole may be more than fp32 holds.
      C half = C(ldexp(1.0, exponent / 2)), rest = C(ldexp(1.0, exponent - exponent / 2));
      team.each([=](C& x) { x = x * half * rest; }, matrix);
      factor = ldexp(factor, -exponent);
    }
    if (team.leads()) {
      f[r.index] = C(factor);
      squared[r.index] = C(factor * factor);
    }
  }
};

}  // namespace

void clip_factor(const Tensor& squares, double limit, bool exactly, Tensor& factor) {
  check(squares.numel() == 1 && factor.numel() == 1,
        [&] { return text(squares) + " into " + text(factor); });
  Extent one{1, 1};
  DeviceScalar from = device_scalar({1, squares}, one);
  dispatch(factor.dtype(), [&](auto type) {
    for_each_element(one, ClipFactor{limit, exactly}, per_row<double>(from),
                     out<decltype(type)>(factor, one));
  });
}

void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) {
  int64_t count = bank.shape()[0];
  check(bank.contiguous() && f.numel() == count && squared.numel() == count,
        [&] { return text(bank) + " into " + text(f) + " and " + text(squared); });
  if (bank.numel() == 0) return;
  Tensor squares({count}, DType::f64, bank.device());
  sum_of_squares(bank, squares);
  Extent e{count, bank.numel() / count};
  dispatch_kernel(bank.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Normalizers<C> g{squares.data<double>(), eps, f.data<C>(), squared.data<C>()};
    for_each_row(e, g, in_out<T>(bank, e));
  });
}

}  // namespace murmur::MURMUR_DEVICE
