// tensor/cuda/zip.cu - y = f(a, b) for every BINARY row of ops.def; b may repeat over a's first
// dimensions.
#include "tensor/checks.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/functor.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

template <class Op>
struct ZipValue {
  __device__ void operator()(float a, float b, float& y) const { y = Op::value(a, b); }
};

template <class Op, bool kLeft>
struct ZipDerivative {
  __device__ void operator()(float a, float b, float dy, float& d) const {
    d += dy * (kLeft ? Op::left(a, b) : Op::right(a, b));
  }
};

namespace {

// The longest rows over which b need not start again.
template <class... Others>
Extent extent_with(const Tensor& b, const Tensor& a, const Others&... others) {
  if (b.numel() == 1) return extent_of(a, others...);
  return a.shape() == b.shape() ? extent_of(a, b, others...) : Extent{a.rows(), a.cols()};
}
template <class T>
Repeated<T> right_of(const Tensor& b, const Tensor& a, Extent e) {
  Extent own = a.shape() == b.shape() ? e : Extent{b.rows(), b.cols()};
  return {in<T>(b, own), uint32_t(own.rows), b.numel() == 1};
}

}  // namespace

void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) {
  check_operands(a, b, y);
  Extent e = extent_with(b, a, y);
  dispatch_single(a.dtype(), [&](auto type) {
    using T = decltype(type);
    with_functor(op, [&](auto f) {
      launch_elementwise(ZipValue<decltype(f)>{}, e, in<T>(a, e), right_of<T>(b, a, e),
                         out<T>(y, e));
    });
  });
}

void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                  Into d) {
  check_operands(a, b, dy);
  check_same(dy, d.tensor);
  Extent e = extent_with(b, a, dy, d.tensor);
  dispatch_single(a.dtype(), [&](auto type) {
    using T = decltype(type);
    auto run = [&](auto f) {
      launch_elementwise(f, e, in<T>(a, e), right_of<T>(b, a, e), in<T>(dy, e),
                         out<T>(d.tensor, e, d.accumulate));
    };
    with_functor(op, [&](auto f) {
      using Op = decltype(f);
      left ? run(ZipDerivative<Op, true>{}) : run(ZipDerivative<Op, false>{});
    });
  });
}

}  // namespace murmur::cuda
