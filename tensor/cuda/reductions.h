// tensor/cuda/reductions.h - what threads add up or compare together, in an order that depends on
// their number alone.
#pragma once

#include "tensor/cuda/instructions.h"

namespace murmur::cuda {

struct Add2 {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a + b;
  }
};
struct Max2 {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a > b ? a : b;
  }
};

// Of `lanes` neighbouring lanes, a power of two: all of them get the result. mask: the lanes of the
// warp that come here together.
template <class C, class F>
__device__ C warp_reduce(C v, const F& combine, int lanes = 32, uint32_t mask = 0xffffffffu) {
  for (int k = 1; k < lanes; k *= 2) v = combine(v, __shfl_xor_sync(mask, v, k));
  return v;
}

// Of the block: whole warps in one dimension. All threads get the result.
template <class C, class F>
__device__ C block_reduce(C v, const F& combine) {
  v = warp_reduce(v, combine);
  int warps = int(blockDim.x) / 32;
  if (warps == 1) return v;
  __shared__ C of_warp[32];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  C all = of_warp[0];
  for (int w = 1; w < warps; w++) all = combine(all, of_warp[w]);
  __syncthreads();
  return all;
}

// f(i) for i < n, over the threads of the block.
template <class F>
__device__ void block_each(int64_t n, const F& f) {
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
}
template <class C, class F>
__device__ C block_sum(int64_t n, const F& f) {
  C s = 0;
  block_each(n, [&](int64_t i) { s += f(i); });
  return block_reduce(s, Add2{});
}

}  // namespace murmur::cuda
