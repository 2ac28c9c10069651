// tensor/cuda/orthonormal.cu - Gram-Schmidt, every column against those before it, twice: once is
// not enough where columns are nearly parallel, twice always is (Giraud et al., 2005). A block of
// threads owns a matrix.
#include "tensor/checks.h"
#include "tensor/cuda/reductions.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

constexpr int kGramThreads = 256;

// v less its parts along the `count` columns of q. parts: `count` numbers of scratch.
__device__ inline void take_out(int m, int count, const double* q, double* parts, double* v) {
#pragma unroll 1
  for (int twice = 0; twice < 2; twice++) {
    for (int j = threadIdx.x / 32; j < count; j += kGramThreads / 32) {  // a column to a warp
      double t = 0;
      for (int i = threadIdx.x % 32; i < m; i += 32) t += q[int64_t(j) * m + i] * v[i];
      t = warp_reduce(t, Add2{});
      if (threadIdx.x % 32 == 0) parts[j] = t;
    }
    __syncthreads();
    block_each(m, [=](int64_t i) {
      double left = v[i];
      for (int j = 0; j < count; j++) left -= parts[j] * q[int64_t(j) * m + i];
      v[i] = left;
    });
    __syncthreads();
  }
}

__device__ inline double norm_of(int m, const double* v) {
  return sqrt(block_sum<double>(m, [=](int64_t i) { return v[i] * v[i]; }));
}

// scratch: m n + n numbers a matrix: its columns, each contiguous, and the parts.
template <class T>
__global__ void __launch_bounds__(kGramThreads)
    orthonormal_columns(const T* x, T* q, int m, int n, double* scratch) {
  constexpr double kDependent = 1e-6;  // left of a column's length when the others are taken out
  double* columns = scratch + blockIdx.x * (int64_t(m) * n + n);
  double* parts = columns + int64_t(m) * n;
  x += blockIdx.x * int64_t(m) * n;
  q += blockIdx.x * int64_t(m) * n;
  auto each_element = [=](auto f) {  // a row to a warp: f(place in the matrix, place in columns)
    for (int i = threadIdx.x / 32; i < m; i += kGramThreads / 32) {
      for (int j = threadIdx.x % 32; j < n; j += 32) f(int64_t(i) * n + j, int64_t(j) * m + i);
    }
  };
  each_element([=](int64_t from, int64_t to) { columns[to] = double(x[from]); });
  __syncthreads();
  int unit = 0;  // the next unit vector to try
  for (int j = 0; j < n; j++) {
    double* v = columns + int64_t(j) * m;
    auto times = [=](double factor) {
      block_each(m, [=](int64_t i) { v[i] *= factor; });
      __syncthreads();
    };
    double before = norm_of(m, v), left = 0;
    if (before != 0) {
      times(1 / before);  // squares of what is left stay in range
      take_out(m, j, columns, parts, v);
      left = norm_of(m, v);
    }
    // Some unit vector keeps at least sqrt((m - j) / m) of its length. NaN takes no one's place.
    for (double enough = kDependent; left <= enough && unit < m; unit++) {
      block_each(m, [=](int64_t i) { v[i] = i == unit; });
      __syncthreads();
      take_out(m, j, columns, parts, v);
      left = norm_of(m, v);
      enough = 0.5 / sqrt(double(m));
    }
    times(1 / left);
  }
  each_element([=](int64_t to, int64_t from) { q[to] = T(float(columns[from])); });
}

void orthonormal_columns(const Tensor& x, Tensor& q) {
  check_orthonormal(x, q);
  int64_t count = x.shape()[0], m = x.shape()[1], n = x.shape()[2];
  if (x.numel() == 0) return;
  Tensor scratch({count, m * n + n}, DType::f64, Device::cuda);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch(cuda::orthonormal_columns<T>, unsigned(count), kGramThreads, 0, x.data<T>(), q.data<T>(),
           int(m), int(n), scratch.data<double>());
  });
}

}  // namespace murmur::cuda
