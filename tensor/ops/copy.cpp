// tensor/ops/copy.cpp - one number everywhere, and elements of one type as another.
#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"

namespace murmur::MURMUR_DEVICE {
namespace {

struct Assign {
  template <class X, class Y>
  KERNEL void operator()(X x, Y& y) const {
    y = Y(x);
  }
};

template <class F>
void dispatch_all(DType dtype, const F& f) {
  if (dtype == DType::i32) return f(int32_t{});
  dispatch(dtype, f);
}

}  // namespace

void fill(Tensor& x, double value) {
  Extent e = extent_of(x);
  dispatch_all(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_element(e, Assign{}, Uniform<Compute<T>>{Compute<T>(value)}, out<T>(x, e));
  });
}

void convert(const Tensor& from, Tensor& to) {
  Extent e = extent_of(from, to);
  if (from.dtype() == DType::bf16 && to.dtype() == DType::bf16) {  // as they are, NaN of all kinds
    return for_each_element(e, Assign{}, in<uint16_t>(from, e), out<uint16_t>(to, e));
  }
  dispatch_all(from.dtype(), [&](auto type) {
    dispatch_all(to.dtype(), [&](auto to_type) {
      for_each_element(e, Assign{}, in<decltype(type)>(from, e), out<decltype(to_type)>(to, e));
    });
  });
}

}  // namespace murmur::MURMUR_DEVICE
