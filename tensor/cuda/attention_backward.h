// tensor/cuda/attention_backward.h - the gradient of causal attention on tensor cores, without
// atomics (FlashAttention-2: Dao, 2023; there dq is added to by many blocks at once).
//
//   p = e^(s - lse)      dp = dy v^T      ds = p (dp - delta), delta = sum over d of dy y
//   dv = p^T dy          dk = ds^T q / sqrt(D)                   dq = ds k / sqrt(D)
//
// Two kernels, so that every sum has one owner and one order. Scores are computed in both: seven
// products instead of five, and in return no fp32 copy of dq, nothing to clear and to convert.
//   keys:     a block is some keys of one head; tiles of queries pass by. All is transposed,
//             s^T = k q^T and dp^T = v dy^T, so that p^T and ds^T lie ready for their products.
//   queries:  a block is 128 queries; tiles of keys and values pass by, as in the forward.
#pragma once

#include "tensor/cuda/attention_tiles.h"

namespace murmur::cuda {

// What the backward kernels need of a query.
struct RowStatistics {
  float lse, delta;  // lse in base 2
};

// Four lanes per row of y (B, T, H, D). statistics: (B, H, padded T), with zeros beyond the end, as
// in tiles: p = 1 there, and all it meets is 0. wide: see vector.h.
template <class T>
__global__ void row_statistics(Rows<T> y, Rows<T> dy, const float* lse, RowStatistics* statistics,
                               Heads at, int64_t padded_rows, bool wide) {
  constexpr int N = kNeighbours<T>;
  int64_t row = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 4;
  int64_t head = row / at.padded(), t = row % at.padded();
  bool exists = row < padded_rows && t < at.time;
  int64_t from = (head / at.heads * at.time + t) * at.heads + head % at.heads;
  float delta = 0;
  for (int d = threadIdx.x % 4 * N; exists && d < at.size; d += 4 * N) {
    float a[N], b[N];
    Place here = place(from, d, at.size, N, wide);
    y.load(a, here);
    dy.load(b, here);
    for (int i = 0; i < N; i++) delta += a[i] * b[i];
  }
  delta = warp_reduce(delta, Add2{}, 4);
  if (row >= padded_rows || threadIdx.x % 4) return;
  statistics[row] = {exists ? kLog2E * lse[head * at.time + t] : 0, delta};
}

// kKeys: the block owns keys, tiles of queries pass by; else it owns queries.
template <int D, bool kKeys>
struct BackwardPlan {
  static constexpr int kThreads = 128;
  static constexpr int M = kKeys && D > 64 ? 1 : 2;  // dk and dv: M D registers
  static constexpr int kOwn = kThreads / 32 * 16 * M, kOthers = kKeys || D > 64 ? 32 : 64;
  static constexpr int kTiles = (2 * kOwn + 4 * kOthers) * D * int(sizeof(bf16));
  static constexpr int kQueries = kKeys ? 2 * kOthers : kOwn;  // whose statistics are at hand
  static constexpr int kShared = kTiles + kQueries * int(sizeof(RowStatistics));
};

template <int kQueries>
__device__ void copy_statistics(RowStatistics* to, const RowStatistics* from) {
  int i = 2 * threadIdx.x;  // 16 bytes
  if (i < kQueries) copy_async(to + i, from + i, true);
}

template <int D, bool kKeys>
__global__ void __launch_bounds__(BackwardPlan<D, kKeys>::kThreads, 2)
    attention_backward(const bf16* qkv, const bf16* dy, const RowStatistics* statistics, bf16* dqkv,
                       bool accumulate, Heads at) {
  using Plan = BackwardPlan<D, kKeys>;
  constexpr int M = Plan::M, kOwn = Plan::kOwn, kOthers = Plan::kOthers, kThreads = Plan::kThreads;
  MURMUR_SHARED(shared);
  bf16* own = reinterpret_cast<bf16*>(shared);  // k and v, or q and dy
  bf16* stages = own + 2 * kOwn * D;            // two of them, each q and dy, or k and v
  auto* of_query = reinterpret_cast<RowStatistics*>(shared + Plan::kTiles);

  int blocks = tiles_of(at.time, kOwn), head = blockIdx.x / blocks, block = blockIdx.x % blocks;
  int first = (kKeys ? block : blocks - 1 - block) * kOwn;  // those with most to do start
  int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * 16 * M;
  const bf16 *q = qkv + at.packed(head), *dout = dy + at.plain(head);
  statistics += int64_t(head) * at.padded();

  auto load = [&](int tile) {
    copy_pair<kOthers, D, kThreads, !kKeys>(stages + tile % 2 * 2 * kOthers * D, q, dout, at,
                                            tile * kOthers);
    if (kKeys) copy_statistics<kOthers>(of_query + tile % 2 * kOthers, statistics + tile * kOthers);
    copy_async_commit();
  };
  int tile = kKeys ? first_query_tile(first, kOthers) : 0;
  int tiles = kKeys ? tiles_of(at.time, kOthers) : key_tiles(first, kOwn, at.time, kOthers);
  copy_pair<kOwn, D, kThreads, kKeys>(own, q, dout, at, first);
  if (!kKeys) copy_statistics<kOwn>(of_query, statistics + first);
  load(tile);

  float scale = 1 / sqrtf(float(D)), c = kLog2E * scale;
  float sum[M][D / 8][4] = {}, sum_of_values[M][D / 8][4] = {};  // dk or dq; dv
  for (; tile < tiles; tile++) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody works on the one before any more
    if (tile + 1 < tiles) load(tile + 1);
    const bf16* others = stages + tile % 2 * 2 * kOthers * D;
    int mine = first + first_row, other = tile * kOthers;
    int ahead = kKeys ? mine - other : other - mine;    // of the first query is the first key
    if (ahead >= (kKeys ? kOthers : 16 * M)) continue;  // all hidden

    float p[M][kOthers / 8][4] = {}, ds[M][kOthers / 8][4] = {};
    multiply_rows<M, kOthers, D>(p, own + first_row * D, others);
    multiply_rows<M, kOthers, D>(ds, own + (kOwn + first_row) * D, others + kOthers * D);
    if (ahead + (kKeys ? 16 * M : kOthers) > 1) hide_later_keys<kKeys>(p, ahead);
    each_result<M, kOthers>([&](int m, int n, int e) {
      RowStatistics query = of_query[kKeys ? tile % 2 * kOthers + 8 * n + result_column(lane, e)
                                           : first_row + 16 * m + result_row(lane, e)];
      p[m][n][e] = exp2_fast(p[m][n][e] * c - query.lse);
      ds[m][n][e] = p[m][n][e] * (ds[m][n][e] - query.delta);
    });
    if (kKeys) multiply_weights<M, kOthers, D>(sum_of_values, p, others + kOthers * D);
    multiply_weights<M, kOthers, D>(sum, ds, others);
  }

  each_result<M, D>([&](int m, int n, int e) { sum[m][n][e] *= scale; });
  int width = at.width(), rows = at.time - first - first_row;
  bf16* to = dqkv + at.packed(head) + int64_t(first + first_row) * 3 * width;
  store_results(sum, to + (kKeys ? width : 0), 3 * width, rows, accumulate);
  if (kKeys) store_results(sum_of_values, to + 2 * width, 3 * width, rows, accumulate);
}

}  // namespace murmur::cuda
