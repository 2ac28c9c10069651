// tensor/cuda/reduce.h - sums of rows, as kernels of other operations need them, too.
#pragma once

#include "tensor/cuda/vector.h"
#include "tensor/ops.h"

namespace murmur::cuda {

constexpr int kSumWarps = 8;  // of a block that adds up rows of a tensor

// sum <- the rows row(i) of x for first <= i < last, at p. Each warp of the block takes every
// kWarps-th of them, its lanes the columns. True in the one warp that then has the sum.
template <int kWarps, class T, int N, class F>
__device__ bool sum_by_warps(float (&sum)[N], const Rows<T>& x, Place p, int64_t first,
                             int64_t last, const F& row) {
  __shared__ float of_warp[kWarps][N][32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (float& s : sum) s = 0;
#pragma unroll 4
  for (int64_t i = first + warp; i < last; i += kWarps) {
    float v[N];
    p.row = row(i);
    x.load(v, p);
    for (int k = 0; k < N; k++) sum[k] += v[k];
  }
  for (int k = 0; k < N; k++) of_warp[warp][k][lane] = sum[k];
  __syncthreads();
  for (int k = 0; k < N && warp == 0; k++) {
    for (int w = 1; w < kWarps; w++) sum[k] += of_warp[w][k][lane];
  }
  __syncthreads();
  return warp == 0;
}

// Where sums go: written, or added to what is there. May be no tensor.
struct Target {
  Rows<float> y;
  bool adds;
  template <int N>
  __device__ void take(float (&sum)[N], const Place& p) const {
    if (!y.data) return;
    float old[N];
    y.load_if(adds, old, p);
    for (int i = 0; i < N; i++) sum[i] += old[i];
    y.store(sum, p);
  }
};

// first (+)= the sum of partial[0] over its pieces, in order, and second that of partial[1], for a
// partial (1 or 2, pieces, C) in fp32. An Into without a tensor is left out.
void add_pieces(const Tensor& partial, Into first, Into second);

}  // namespace murmur::cuda
