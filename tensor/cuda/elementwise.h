// tensor/cuda/elementwise.h - the one kernel of all elementwise operations.
//
// An operation is a function of single numbers, f(a, b, ..., y, ...), with one argument for each of
// its operands. An operand brings its numbers to registers, and back if it is an Out.
#pragma once

#include <utility>

#include "tensor/cuda/runtime.h"
#include "tensor/cuda/vector.h"

namespace murmur::cuda {

template <class T>
struct In {
  static constexpr int kBytes = sizeof(T);
  Rows<T> x;
  bool wide(int n) const { return x.wide(n); }
  template <int N>
  __device__ void load(float (&v)[N], const Place& p) const {
    x.load(v, p);
  }
};
template <class T>
In<T> in(const Tensor& x, Extent e) {
  return {rows_of<T>(x, e)};
}

// Its numbers start as those that are there when `adds`, else as 0. May be no tensor.
template <class T>
struct Out {
  static constexpr int kBytes = sizeof(T);
  Rows<T> y;
  bool adds;
  bool wide(int n) const { return y.wide(n); }
  template <int N>
  __device__ void load(float (&v)[N], const Place& p) const {
    y.load_if(adds, v, p);
  }
  template <int N>
  __device__ void store(const float (&v)[N], const Place& p) const {
    if (y.data) y.store(v, p);
  }
};
template <class T>
Out<T> out(const Tensor& y, Extent e, bool adds = false) {
  return {rows_of<T>(y, e), adds};
}

// One number for all of a row: f(row).
template <class F>
struct Each {
  static constexpr int kBytes = 0;
  F f;
  bool wide(int) const { return true; }
  template <int N>
  __device__ void load(float (&v)[N], const Place& p) const {
    float number = f(p.row);
    for (float& x : v) x = number;
  }
};

// Rows over and over, or one number for all. May be no tensor: zeros.
template <class T>
struct Repeated : In<T> {
  uint32_t rows;
  bool one;
  bool wide(int n) const { return one || this->x.wide(n); }
  template <int N>
  __device__ void load(float (&v)[N], Place p) const {
    p.row = rows == 1 ? 0 : uint32_t(p.row) % rows;
    if (!one) return this->x.load_if(this->x.data, v, p);
    for (float& number : v) number = float(*this->x.data);
  }
};

// A thread per N neighbours of a row, grid.y over the rows.
template <int N, class F, class... X>
__global__ void __launch_bounds__(256) elementwise(F f, Extent e, bool wide, X... x) {
  int64_t at = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (at >= e.cols) return;
  auto work = [&]<size_t... I>(std::index_sequence<I...>) {
    for (int64_t row = blockIdx.y; row < e.rows; row += gridDim.y) {
      Place p = place(row, at, e.cols, N, wide);
      float v[sizeof...(X)][N];
      (x.load(v[I], p), ...);
      for (int i = 0; i < N; i++) f(v[I][i]...);
      auto store = [&](const auto& operand, const float(&numbers)[N]) {
        if constexpr (requires { operand.store(numbers, p); }) operand.store(numbers, p);
      };
      (store(x, v[I]), ...);
    }
  };
  work(std::index_sequence_for<X...>{});
}

template <class F, class... X>
void launch_elementwise(const F& f, Extent e, const X&... x) {
  constexpr int N = 16 / std::max({X::kBytes...});
  int64_t places = ceil_div(e.cols, N);
  int64_t threads = std::clamp<int64_t>(ceil_div(places, 32) * 32, 32, 256);
  dim3 grid{unsigned(ceil_div(places, threads)), unsigned(std::min<int64_t>(e.rows, 65535))};
  launch(elementwise<N, F, X...>, grid, unsigned(threads), 0, f, e, (x.wide(N) && ...), x...);
}

// A Factor whose second part is read by the kernel: a captured graph sees new values. Rows belong
// to its parts in equal shares.
struct DeviceFactor {
  double value = 1;
  const void* by = nullptr;
  bool is_double = false;
  uint32_t rows_per_part = 0xffffffffu;

  __device__ float operator()(int64_t row) const {
    if (!by) return float(value);
    uint32_t k = uint32_t(row) / rows_per_part;
    return float(value * (is_double ? static_cast<const double*>(by)[k]
                                    : double(static_cast<const float*>(by)[k])));
  }
};

// Cuts e, of contiguous tensors or of rows, so that no row lies in two parts of the factor.
inline Each<DeviceFactor> factor_of(const Factor& factor, Extent& e) {
  DeviceFactor f{factor.value};
  if (!factor.by) return {f};
  const Tensor& by = factor.by;
  int64_t parts = by.numel();
  if (parts > 1 && e.rows == 1 && e.cols % parts == 0) e = {parts, e.cols / parts};
  check(by.device() == Device::cuda && (by.dtype() == DType::f32 || by.dtype() == DType::f64) &&
            by.contiguous() && parts > 0 && (parts == 1 || e.rows % parts == 0),
        [&] { return "factors " + text(by) + " do not fit"; });
  f.by = by.raw();
  f.is_double = by.dtype() == DType::f64;
  if (parts > 1) f.rows_per_part = uint32_t(e.rows / parts);
  return {f};
}

}  // namespace murmur::cuda
