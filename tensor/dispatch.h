// tensor/dispatch.h - from a tensor's element type to a C++ type.
#pragma once

#include "tensor/tensor.h"

namespace murmur {

// Calls f(T{}) with T = float, bf16 or double.
template <class F>
auto dispatch(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    case DType::f64:
      return f(double{});
    case DType::i32:
      break;
  }
  throw Error(std::string("not for ") + name_of(dtype) + " tensors");
}

// The same without double, for a device whose kernels are not made for it.
template <class F>
auto dispatch_single(DType dtype, const F& f) {
  if (dtype == DType::f32) return f(float{});
  if (dtype == DType::bf16) return f(bf16{});
  throw Error(std::string("not for ") + name_of(dtype) + " tensors on this device");
}

inline void check_same(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(),
        [&] { return text(a) + " against " + text(b); });
}

// A flat range of a contiguous tensor, or row by row: calls f(row, begin_column, end_column) so
// that kernels over strided and contiguous tensors read alike.
struct Extent {
  int64_t rows, cols;
  int group = 1;  // rows come in groups of so many: the heads of a token
};
// One long row when all tensors are contiguous, else their rows.
template <class... Tensors>
Extent extent_of(const Tensor& first, const Tensors&... others) {
  bool flat = first.contiguous() && (others.contiguous() && ...);
  return flat ? Extent{1, first.numel()} : Extent{first.rows(), first.cols()};
}

}  // namespace murmur
