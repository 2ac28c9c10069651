// tensor/cuda/attention_rows.h - causal attention for any type and head size up to 256: the
// formulas of attention_forward.h and attention_backward.h, one warp per row. For what has no
// tensor cores: meant to be clear.
#pragma once

#include "tensor/cuda/attention_backward.h"
#include "tensor/ops/maximum.h"

namespace murmur::cuda {

constexpr int kRowWarps = 4, kLargestHead = 256;

// A row of a head in the registers of a warp: column d belongs to lane d % 32.
struct HeadRow {
  float value[kLargestHead / 32] = {};

  HeadRow() = default;
  template <class T>
  __device__ HeadRow(const T* from, int size) {
    each(size, [&](int d, float& v) { v = float(from[d]); });
  }
  template <class F>
  __device__ void each(int size, const F& f) {
#pragma unroll
    for (int i = 0; i < kLargestHead / 32; i++) {
      int d = threadIdx.x % 32 + 32 * i;
      if (d < size) f(d, value[i]);
    }
  }
  // <- factor this + weight row
  __device__ void add(float factor, float weight, const HeadRow& row) {
    for (int i = 0; i < kLargestHead / 32; i++) {
      value[i] = factor * value[i] + weight * row.value[i];
    }
  }
  template <class T>
  __device__ void store(T* to, int size, float factor, bool accumulate) {
    each(size, [=](int d, float v) { to[d] = T(factor * v + (accumulate ? float(to[d]) : 0.f)); });
  }
};

__device__ inline float dot(const HeadRow& a, const HeadRow& b) {
  float sum = 0;
  for (int i = 0; i < kLargestHead / 32; i++) sum += a.value[i] * b.value[i];
  return warp_reduce(sum, Add2{});
}

template <class T>
__global__ void attention_rows(const T* qkv, T* y, float* lse, Heads at, int64_t rows) {
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp
  int size = at.size, head = row / at.time, query = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T* q = qkv + at.packed(head);
  HeadRow own(q + query * stride, size), out;
  float c = kLog2E / sqrtf(float(size)), top = -INFINITY, sum = 0;
  for (int key = 0; key <= query; key++) {
    const T* k = q + width + key * stride;
    float s = c * dot(own, HeadRow(k, size)), now = fmaxf(top, s);
    float shrink = exp2_fast(top - now), p = exp2_fast(s - now);
    out.add(shrink, p, HeadRow(k + width, size));
    sum = sum * shrink + p;
    top = now;
  }
  out.store(y + at.plain(head) + query * width, size, 1 / sum, false);
  if (threadIdx.x % 32 == 0) lse[row] = kLn2 * (top + log2f(sum));
}

// top[row] <- the largest score of a query.
template <class T>
__global__ void largest_score_rows(const T* qkv, float* top, Heads at, int64_t rows) {
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp
  int size = at.size, head = row / at.time, query = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T* q = qkv + at.packed(head);
  HeadRow own(q + query * stride, size);
  float largest = -INFINITY;
  for (int key = 0; key <= query; key++) {
    largest = Maximum::value(largest, dot(own, HeadRow(q + width + key * stride, size)));
  }
  if (threadIdx.x % 32 == 0) top[row] = largest / sqrtf(float(size));
}

// y[h] <- max(y[h], top of all its queries), a block to a head.
__global__ void __launch_bounds__(256)
    largest_of_head(const float* top, int64_t batch, Heads at, float* y) {
  auto larger = [](float a, float b) { return Maximum::value(a, b); };
  float largest = -INFINITY;
  block_each(batch * at.time, [&](int64_t i) {
    float score = top[(i / at.time * at.heads + blockIdx.x) * at.time + i % at.time];
    largest = larger(largest, score);
  });
  largest = block_reduce(largest, larger);
  if (threadIdx.x == 0) y[blockIdx.x] = larger(y[blockIdx.x], largest);
}

// kKeys: the warp owns a key and makes dk and dv from the queries that see it; else it owns a query
// and makes dq.
template <class T, bool kKeys>
__global__ void attention_rows_backward(const T* qkv, const T* dy, const RowStatistics* statistics,
                                        T* dqkv, bool accumulate, Heads at, int64_t rows) {
  int64_t row = int64_t(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  if (row >= rows) return;
  int size = at.size, head = row / at.time, mine = row % at.time;
  int64_t width = at.width(), stride = 3 * width;
  const T *q = qkv + at.packed(head), *dout = dy + at.plain(head);
  auto first_of = [=](bool keys, int64_t t) { return q + t * stride + (keys ? width : 0); };
  auto second_of = [=](bool keys, int64_t t) {
    return keys ? q + t * stride + 2 * width : dout + t * width;
  };
  HeadRow first(first_of(kKeys, mine), size), second(second_of(kKeys, mine), size);
  HeadRow sum, sum_of_values;  // dk or dq; dv
  float scale = 1 / sqrtf(float(size)), c = kLog2E * scale;
  for (int i = kKeys ? mine : 0; i < (kKeys ? at.time : mine + 1); i++) {
    HeadRow a(first_of(!kKeys, i), size), b(second_of(!kKeys, i), size);
    RowStatistics query = statistics[int64_t(head) * at.padded() + (kKeys ? i : mine)];
    float p = exp2_fast(c * dot(first, a) - query.lse);
    sum.add(1, p * (dot(second, b) - query.delta), a);
    if (kKeys) sum_of_values.add(1, p, b);
  }
  T* to = dqkv + at.packed(head) + mine * stride;
  sum.store(to + (kKeys ? width : 0), size, scale, accumulate);
  if (kKeys) sum_of_values.store(to + 2 * width, size, 1, accumulate);
}

}  // namespace murmur::cuda
