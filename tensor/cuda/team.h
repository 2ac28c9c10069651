// tensor/cuda/team.h - how one row is worked on here: by threads together. Row operations
// (tensor/ops/*.h) are written once over a Team; tensor/cpu/ has a Team of one core.
//
// All sums are made in an order that depends on the number of threads alone.
#pragma once

#include "tensor/cuda/instructions.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/vector.h"

namespace murmur::cuda {

#if defined(__CUDACC__) && !defined(__CUDA_ARCH__)
// Row operations are for both sides, so nvcc looks at the host's side of a Team, too.
template <class C>
C other_lane(C v, int) {
  return v;
}
#else
template <class C>
__device__ C other_lane(C v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
#endif

struct Add2 {
  template <class C>
  MURMUR_HD C operator()(C a, C b) const {
    return a + b;
  }
};
struct Max2 {
  template <class C>
  MURMUR_HD C operator()(C a, C b) const {
    return a > b ? a : b;
  }
};

// Of `lanes` neighbouring lanes, a power of two: all of them get the result.
template <class C, class F>
MURMUR_HD C over_lanes(C v, const F& combine, int lanes = 32) {
  for (int mask = 1; mask < lanes; mask *= 2) v = combine(v, other_lane(v, mask));
  return v;
}

// The block: whole warps in one dimension.
struct BlockTeam {
  template <class C, class F>
  __device__ static C over_block(C v, const F& combine) {
    v = over_lanes(v, combine);
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

  template <class F>
  __device__ static void each(int64_t n, const F& f) {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
  }
  template <class C, class F>
  __device__ static C max(int64_t n, C lowest, const F& f) {
    C m = lowest;
    each(n, [&](int64_t i) { m = Max2{}(m, C(f(i))); });
    return over_block(m, Max2{});
  }
  template <class C, class F>
  __device__ static C sum(int64_t n, const F& f) {
    C s = 0;
    each(n, [&](int64_t i) { s += f(i); });
    return over_block(s, Add2{});
  }
};

// A few lanes of a warp, with N elements of the row each in registers: element i is the lane's own.
template <int N>
struct LaneTeam {
  int lanes;

  template <class F>
  MURMUR_HD void each(int64_t, const F& f) const {
    for (int i = 0; i < N; i++) f(i);
  }
  template <class C, class F>
  MURMUR_HD C sum(int64_t, const F& f) const {
    C s = 0;
    for (int i = 0; i < N; i++) s += f(i);
    return over_lanes(s, Add2{}, lanes);
  }
};

// Calls f(team, row) with a block for every row.
template <class F>
__global__ void __launch_bounds__(512) each_row(F f) {
  f(BlockTeam{}, int64_t(blockIdx.x));
}
template <class F>
void launch_rows(const F& f, int64_t rows, int64_t cols) {
  int64_t threads = std::clamp<int64_t>(ceil_div(cols, 128) * 32, 32, 512);
  launch(each_row<F>, unsigned(rows), unsigned(threads), 0, f);
}

}  // namespace murmur::cuda
