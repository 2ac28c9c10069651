// tensor/cuda/elementwise.h - the one kernel of all elementwise operations.
#pragma once

#include "tensor/cuda/runtime.h"
#include "tensor/cuda/vector.h"

namespace murmur::cuda {

// Calls f(place) for every F::N neighbours of every row: a thread per place, grid.y over the rows.
template <class F>
__global__ void __launch_bounds__(256) elementwise(F f, int64_t rows, int64_t cols, bool wide) {
  int64_t at = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * F::N;
  if (at >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    f(place(row, at, cols, F::N, wide));
  }
}

template <class F>
void launch_elementwise(const F& f, Extent e, std::initializer_list<const Tensor*> tensors) {
  int64_t places = ceil_div(e.cols, F::N);
  int64_t threads = std::clamp<int64_t>(ceil_div(places, 32) * 32, 32, 256);
  dim3 grid{unsigned(ceil_div(places, threads)), unsigned(std::min<int64_t>(e.rows, 65535))};
  launch(elementwise<F>, grid, unsigned(threads), 0, f, e.rows, e.cols, wide(F::N, e, tensors));
}

// A Factor whose second part is read by the kernel: a captured graph sees new values. Rows belong
// to its parts in equal shares.
struct DeviceFactor {
  double value = 1;
  const void* by = nullptr;
  bool is_double = false;
  uint32_t rows_per_part = 0xffffffffu;

  __device__ double operator()(int64_t row) const {
    if (!by) return value;
    uint32_t k = uint32_t(row) / rows_per_part;
    return value * (is_double ? static_cast<const double*>(by)[k]
                              : double(static_cast<const float*>(by)[k]));
  }
};

// Cuts e, of contiguous tensors or of rows, so that no row lies in two parts of the factor.
inline DeviceFactor factor_of(const char* op, const Factor& factor, Extent& e) {
  DeviceFactor f{factor.value};
  if (!factor.by) return f;
  const Tensor& by = factor.by;
  int64_t parts = by.numel();
  if (parts > 1 && e.rows == 1 && e.cols % parts == 0) e = {parts, e.cols / parts};
  check(by.device() == Device::cuda && (by.dtype() == DType::f32 || by.dtype() == DType::f64) &&
            by.contiguous() && parts > 0 && (parts == 1 || e.rows % parts == 0),
        [&] { return std::string(op) + ": factors " + text(by) + " do not fit"; });
  f.by = by.raw();
  f.is_double = by.dtype() == DType::f64;
  if (parts > 1) f.rows_per_part = uint32_t(e.rows / parts);
  return f;
}

}  // namespace murmur::cuda
