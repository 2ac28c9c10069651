// tensor/kernel/launch.h - for a file with kernels: operands, the Team and the launchers of the
// device that this compilation is for.
#pragma once

#include "tensor/checks.h"
#include "tensor/kernel/operands.h"

#ifdef MURMUR_GPU_KERNELS
#include "tensor/kernel/team_cuda.h"
#else
#include "tensor/kernel/team_cpu.h"
#endif

namespace murmur::MURMUR_DEVICE {

// Calls f(T{}) with the element type. Kernels for GPUs are not made for double.
template <class F>
void dispatch_kernel(DType dtype, const F& f) {
#ifdef MURMUR_GPU_KERNELS
  dispatch_single(dtype, f);
#else
  dispatch(dtype, f);
#endif
}

// The same for what is kept in full: parameters, the state of optimizers.
template <class F>
void dispatch_compute(DType dtype, const F& f) {
#ifndef MURMUR_GPU_KERNELS
  if (dtype == DType::f64) return f(double{});
#endif
  check(dtype == DType::f32, [&] { return std::string("not for ") + name_of(dtype) + " tensors"; });
  f(float{});
}

// Two sums over the rows of x, column by column: operands first and second gather them, finish()
// adds the pieces up.
template <class C>
class ColumnSums {
 public:
  explicit ColumnSums(const Tensor& x)
      : partial_({2, column_pieces(x.rows()), x.cols()}, compute_type(x.dtype()), x.device()) {}
  ColumnSum<C> operator[](int k) const {
    int64_t pieces = partial_.shape()[1], cols = partial_.cols();
    return {{partial_.template data<C>() + k * pieces * cols, cols}};
  }
  void finish(const Into& first, const Into& second) const { add_pieces(partial_, first, second); }

 private:
  Tensor partial_;
};

}  // namespace murmur::MURMUR_DEVICE
