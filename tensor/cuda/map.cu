// tensor/cuda/map.cu - y = f(x) for every UNARY row of ops.def, and the few maps with a constant.
#include "tensor/checks.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/functor.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

template <class Op>
struct Value {
  __device__ void operator()(float x, float& y) const { y = Op::value(x); }
};

template <class Op>
struct Derivative {
  __device__ void operator()(float x, float dy, float& dx) const { dx += dy * Op::derivative(x); }
};

struct Scale {
  __device__ void operator()(float alpha, float x, float& y) const { y += alpha * x; }
};

struct Lerp {
  float old, added;
  __device__ void operator()(float x, float& y) const { y = old * y + added * x; }
};

void map(Unary op, const Tensor& x, Tensor& y) {
  check_same(x, y);
  Extent e = extent_of(x, y);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    with_functor(op, [&](auto f) {
      launch_elementwise(Value<decltype(f)>{}, e, in<T>(x, e), out<T>(y, e));
    });
  });
}

void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) {
  check_same(x, dy);
  check_same(x, dx.tensor);
  Extent e = extent_of(x, dy, dx.tensor);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    with_functor(op, [&](auto f) {
      launch_elementwise(Derivative<decltype(f)>{}, e, in<T>(x, e), in<T>(dy, e),
                         out<T>(dx.tensor, e, dx.accumulate));
    });
  });
}

void scale(const Factor& alpha, const Tensor& x, Into y) {
  check_shape(x, y.tensor);
  Extent e = extent_of(x, y.tensor);
  auto a = factor_of(alpha, e);
  dispatch_single(x.dtype(), [&](auto type) {
    dispatch_single(y.tensor.dtype(), [&](auto out_type) {
      launch_elementwise(Scale{}, e, a, in<decltype(type)>(x, e),
                         out<decltype(out_type)>(y.tensor, e, y.accumulate));
    });
  });
}

void lerp(double t, const Tensor& x, Tensor& y) {
  check_same(x, y);
  Extent e = extent_of(x, y);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch_elementwise(Lerp{float(1 - t), float(t)}, e, in<T>(x, e), out<T>(y, e, true));
  });
}

}  // namespace murmur::cuda
