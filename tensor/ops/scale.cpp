// tensor/ops/scale.cpp - y (+)= alpha x, and y <- (1 - t) y + t x.
#include "tensor/kernel/launch.h"
#include "tensor/ops.h"

namespace murmur::MURMUR_DEVICE {
namespace {

struct Scale {
  template <class X, class C>
  KERNEL void operator()(C alpha, X x, C& y) const {
    y = alpha * C(x);
  }
};

template <class C>
struct Lerp {
  C old, added;
  KERNEL void operator()(C x, C& y) const { y = old * y + added * x; }
};

}  // namespace

void scale(const Factor& alpha, const Tensor& x, Into y) {
  check_shape(x, y.tensor);
  Extent e = extent_of(x, y.tensor);
  DeviceScalar by = device_scalar(alpha, e);
  dispatch_kernel(x.dtype(), [&](auto type) {
    dispatch_kernel(y.tensor.dtype(), [&](auto out_type) {
      using U = decltype(out_type);
      for_each_element(e, Scale{}, per_row<Compute<U>>(by), in<decltype(type)>(x, e),
                       accumulate<U>(y, e));
    });
  });
}

void lerp(double t, const Tensor& x, Tensor& y) {
  check_same(x, y);
  Extent e = extent_of(x, y);
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_element(e, Lerp<C>{C(1 - t), C(t)}, in<T>(x, e), in_out<T>(y, e));
  });
}

}  // namespace murmur::MURMUR_DEVICE
