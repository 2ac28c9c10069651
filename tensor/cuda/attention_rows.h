// tensor/cuda/attention_rows.h - causal attention for any type and head size up to 256: the
// formulas of attention_forward.h and attention_backward.h, one warp per row. For what has no
// tensor cores: meant to be clear.
//
// 32 rows of the other side at a time: each lane computes one score (a product of two rows, of
// which the warp's own lies in shared memory), then the lanes share out the columns of the sum.
#pragma once

#include "tensor/cuda/attention_backward.h"

namespace murmur::cuda {

constexpr int kRowWarps = 4, kLargestHead = 256;

// The warp's own rows `a` and `b` and 32 weights for each of two sums, in shared memory.
struct OwnRows {
  float *a, *b, *p, *ds;
  static constexpr size_t bytes(int size) { return kRowWarps * (2 * size + 64) * sizeof(float); }
  __device__ OwnRows(unsigned char* shared, int size) {
    a = reinterpret_cast<float*>(shared) + threadIdx.x / 32 * (2 * size + 64);
    b = a + size, p = b + size, ds = p + 32;
  }
};

template <class T>
__device__ void load_row(float* row, const T* from, int size) {
  for (int d = threadIdx.x % 32; d < size; d += 32) row[d] = float(from[d]);
}

template <class T>
__device__ float dot(const float* a, const T* b, int size) {
  float sum = 0;
  for (int d = 0; d < size; d++) sum += a[d] * float(b[d]);
  return sum;
}

// Columns d of a row belong to lane d % 32.
struct SumOfRows {
  float value[kLargestHead / 32] = {};

  __device__ void scale(float factor) {
    for (float& v : value) v *= factor;
  }
  // += weights (n) times rows (n, size)
  template <class T>
  __device__ void add(const float* weights, int n, const T* rows, int64_t stride, int size) {
    for (int j = 0; j < n; j++) {
#pragma unroll
      for (int i = 0; i < kLargestHead / 32; i++) {
        int d = threadIdx.x % 32 + 32 * i;
        if (d < size) value[i] += weights[j] * float(rows[j * stride + d]);
      }
    }
  }
  template <class T>
  __device__ void store(T* to, int size, float factor, bool accumulate) const {
#pragma unroll
    for (int i = 0; i < kLargestHead / 32; i++) {
      int d = threadIdx.x % 32 + 32 * i;
      if (d < size) to[d] = T(factor * value[i] + (accumulate ? float(to[d]) : 0.f));
    }
  }
};

template <class T>
__global__ void attention_rows(const T* qkv, T* y, float* lse, Heads at, int64_t rows) {
  MURMUR_SHARED(shared);
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp
  int lane = threadIdx.x % 32, size = at.size, head = row / at.time, query = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T* q = qkv + at.packed(head);
  OwnRows own(shared, size);
  load_row(own.a, q + query * stride, size);
  __syncwarp();

  float c = kLog2E / sqrtf(float(size)), top = -INFINITY, sum = 0;
  SumOfRows out;
  for (int first = 0; first <= query; first += 32) {
    int n = min(32, query + 1 - first);
    const T* k = q + width + first * stride;
    float s = lane < n ? c * dot(own.a, k + lane * stride, size) : -INFINITY;
    float now = over_lanes(fmaxf(top, s), Max2{}), shrink = exp2_fast(top - now);
    float p = exp2_fast(s - now);
    own.p[lane] = p;
    sum = sum * shrink + p;
    top = now;
    out.scale(shrink);
    __syncwarp();
    out.add(own.p, n, k + width, stride, size);
    __syncwarp();
  }
  float total = over_lanes(sum, Add2{});
  out.store(y + at.plain(head) + query * width, size, 1 / total, false);
  if (lane == 0) lse[row] = kLn2 * (top + log2f(total));
}

template <class T>
__global__ void attention_rows_dq(const T* qkv, const T* dy, const RowStatistics* statistics,
                                  T* dqkv, bool accumulate, Heads at, int64_t rows) {
  MURMUR_SHARED(shared);
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;
  int lane = threadIdx.x % 32, size = at.size, head = row / at.time, query = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T* q = qkv + at.packed(head);
  OwnRows own(shared, size);
  load_row(own.a, q + query * stride, size);
  load_row(own.b, dy + at.plain(head) + query * width, size);
  __syncwarp();

  float scale = 1 / sqrtf(float(size)), c = kLog2E * scale;
  RowStatistics of_row = statistics[row];
  SumOfRows dq;
  for (int first = 0; first <= query; first += 32) {
    int n = min(32, query + 1 - first);
    const T* k = q + width + first * stride;
    if (lane < n) {
      float p = exp2_fast(c * dot(own.a, k + lane * stride, size) - of_row.lse);
      own.ds[lane] = p * (dot(own.b, k + width + lane * stride, size) - of_row.delta);
    }
    __syncwarp();
    dq.add(own.ds, n, k, stride, size);
    __syncwarp();
  }
  dq.store(dqkv + at.packed(head) + query * stride, size, scale, accumulate);
}

template <class T>
__global__ void attention_rows_dkdv(const T* qkv, const T* dy, const RowStatistics* statistics,
                                    T* dqkv, bool accumulate, Heads at, int64_t rows) {
  MURMUR_SHARED(shared);
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;
  int lane = threadIdx.x % 32, size = at.size, head = row / at.time, key = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T *q = qkv + at.packed(head), *k = q + width + key * stride;
  OwnRows own(shared, size);
  load_row(own.a, k, size);
  load_row(own.b, k + width, size);
  __syncwarp();

  float scale = 1 / sqrtf(float(size)), c = kLog2E * scale;
  SumOfRows dk, dv;
  for (int first = key; first < at.time; first += 32) {
    int n = min(32, at.time - first);
    const T *queries = q + first * stride, *dout = dy + at.plain(head) + first * width;
    if (lane < n) {
      RowStatistics of_query = statistics[int64_t(head) * at.time + first + lane];
      float p = exp2_fast(c * dot(own.a, queries + lane * stride, size) - of_query.lse);
      own.p[lane] = p;
      own.ds[lane] = p * (dot(own.b, dout + lane * width, size) - of_query.delta);
    }
    __syncwarp();
    dk.add(own.ds, n, queries, stride, size);
    dv.add(own.p, n, dout, width, size);
    __syncwarp();
  }
  T* to = dqkv + at.packed(head) + width + key * stride;
  dk.store(to, size, scale, accumulate);
  dv.store(to + width, size, 1, accumulate);
}

}  // namespace murmur::cuda
