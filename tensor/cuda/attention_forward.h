// tensor/cuda/attention_forward.h - causal attention on tensor cores
// (FlashAttention-2: Dao, 2023; online softmax: Milakov & Gimelshein, 2018).
//
//   s = q k^T      c = log2(e) / sqrt(D)      p = 2^(c s - c max s)      y = p v / sum p
//   lse = ln 2 (c max s + log2 sum p)
//
// One block is 128 queries of one head: they stay in shared memory while tiles of keys and values
// pass by, each being loaded while the one before is worked on. Maximum and sum of a row follow the
// tiles; when the maximum grows, what was summed before shrinks.
#pragma once

#include "tensor/cuda/attention_tiles.h"

namespace murmur::cuda {

template <int D>
struct ForwardPlan {
  static constexpr int kThreads = 128, M = 2;
  static constexpr int kQueries = kThreads / 32 * 16 * M;
  static constexpr int kKeys = D <= 64 ? 64 : 32;  // so that two blocks fit on a multiprocessor
  static constexpr int kShared = (kQueries + 4 * kKeys) * D * int(sizeof(bf16));
};

template <int D>
__global__ void __launch_bounds__(ForwardPlan<D>::kThreads, 2)
    attention_forward(const bf16* qkv, bf16* y, float* lse, Heads at) {
  using Plan = ForwardPlan<D>;
  constexpr int M = Plan::M, kKeys = Plan::kKeys;
  MURMUR_SHARED(shared);
  bf16* queries = reinterpret_cast<bf16*>(shared);
  bf16* stages = queries + Plan::kQueries * D;  // two of them, each keys and values

  int blocks = tiles_of(at.time, Plan::kQueries), head = blockIdx.x / blocks;
  int first = (blocks - 1 - blockIdx.x % blocks) * Plan::kQueries;  // those with most keys start
  int first_row = threadIdx.x / 32 * 16 * M;
  int width = at.width();
  const bf16* q = qkv + at.packed(head);

  auto load_keys = [&](int tile) {
    copy_pair<kKeys, D, Plan::kThreads, true>(stages + tile % 2 * 2 * kKeys * D, q, nullptr, at,
                                              tile * kKeys);
    copy_async_commit();
  };
  copy_tile<Plan::kQueries, D, Plan::kThreads>(queries, q + int64_t(first) * 3 * width, 3 * width,
                                               at.time - first);
  load_keys(0);

  float c = kLog2E / sqrtf(float(D)), out[M][D / 8][4] = {};
  OnlineSoftmax<M> softmax;
  int tiles = key_tiles(first, Plan::kQueries, at.time, kKeys);
  for (int tile = 0; tile < tiles; tile++) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody works on the one before any more
    if (tile + 1 < tiles) load_keys(tile + 1);
    const bf16* keys = stages + tile % 2 * 2 * kKeys * D;
    int ahead = tile * kKeys - first - first_row;  // of this warp's first query is the first key
    if (ahead >= 16 * M) continue;                 // all hidden

    float s[M][kKeys / 8][4] = {};
    multiply_rows<M, kKeys, D>(s, queries + first_row * D, keys);
    if (ahead + kKeys > 1) hide_later_keys<false>(s, ahead);
    float shrink[M][2];
    softmax.add(s, c, shrink);
    each_result<M, D>([&](int m, int n, int e) { out[m][n][e] *= shrink[m][e / 2]; });
    multiply_weights<M, kKeys, D>(out, s, keys + kKeys * D);
  }

  first += first_row;
  softmax.finish(out, c, lse + int64_t(head) * at.time + first, at.time - first);
  store_results(out, y + at.plain(head) + int64_t(first) * width, width, at.time - first, false);
}

}  // namespace murmur::cuda
