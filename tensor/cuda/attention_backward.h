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

// Four lanes per row of y (B, T, H, D). statistics: (B, H, T). wide: see vector.h.
template <class T>
__global__ void row_statistics(Rows<T> y, Rows<T> dy, const float* lse, RowStatistics* statistics,
                               Heads at, int64_t rows, bool wide) {
  constexpr int N = kNeighbours<T>;
  int64_t row = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 4;
  float delta = 0;
  for (int d = threadIdx.x % 4 * N; row < rows && d < at.size; d += 4 * N) {
    float a[N], b[N];
    Place here = place(row, d, at.size, N, wide);
    y.load(a, here);
    dy.load(b, here);
    for (int i = 0; i < N; i++) delta += a[i] * b[i];
  }
  delta = over_lanes(delta, Add2{}, 4);
  if (row < rows && threadIdx.x % 4 == 0) {
    int64_t h = row % at.heads, t = row / at.heads % at.time, b = row / at.heads / at.time;
    int64_t to = (b * at.heads + h) * at.time + t;
    statistics[to] = {kLog2E * lse[to], delta};
  }
}

template <int D>
struct KeysPlan {
  static constexpr int kThreads = 128, M = D <= 64 ? 2 : 1;  // dk and dv: M D registers
  static constexpr int kKeys = kThreads / 32 * 16 * M, kQueries = 32;
  static constexpr int kTiles = (2 * kKeys + 4 * kQueries) * D * int(sizeof(bf16));
  static constexpr int kShared = kTiles + 2 * kQueries * int(sizeof(RowStatistics));
};

template <int D>
__global__ void __launch_bounds__(KeysPlan<D>::kThreads, 2)
    attention_backward_keys(const bf16* qkv, const bf16* dy, const RowStatistics* statistics,
                            bf16* dqkv, bool accumulate, Heads at) {
  using Plan = KeysPlan<D>;
  constexpr int M = Plan::M, kKeys = Plan::kKeys, kQueries = Plan::kQueries;
  MURMUR_SHARED(shared);
  bf16* keys = reinterpret_cast<bf16*>(shared);  // and values
  bf16* stages = keys + 2 * kKeys * D;           // two of them, each q and dy
  auto* of_query = reinterpret_cast<RowStatistics*>(shared + Plan::kTiles);

  int blocks = tiles_of(at.time, kKeys), head = blockIdx.x / blocks;
  int first = blockIdx.x % blocks * kKeys;  // those seen by most queries start
  int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * 16 * M;
  int width = at.width();
  const bf16* q = qkv + at.packed(head);

  auto load_queries = [&](int tile) {
    int64_t t = tile * kQueries;
    copy_pair<kQueries, D, Plan::kThreads>(stages + tile % 2 * 2 * kQueries * D, q + t * 3 * width,
                                           3 * width, dy + at.plain(head) + t * width, width,
                                           at.time - tile * kQueries);
    copy_async_commit();
  };
  // One number per thread. Zeros beyond the end, as in the tiles: p = 1, and all it meets is 0.
  auto statistic_of = [&](int tile) {
    int i = threadIdx.x, t = tile * kQueries;
    bool valid = i < 2 * kQueries && t + i / 2 < at.time;
    const auto* numbers = reinterpret_cast<const float*>(statistics + int64_t(head) * at.time + t);
    return valid ? numbers[i] : 0.f;
  };
  int tile = first_query_tile(first, kQueries), tiles = tiles_of(at.time, kQueries);
  const bf16* k = q + width + int64_t(first) * 3 * width;
  copy_pair<kKeys, D, Plan::kThreads>(keys, k, 3 * width, k + width, 3 * width, at.time - first);
  load_queries(tile);
  float coming = statistic_of(tile);

  float scale = 1 / sqrtf(float(D)), c = kLog2E * scale;
  float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};
  for (; tile < tiles; tile++) {
    const bf16* queries = stages + tile % 2 * 2 * kQueries * D;
    RowStatistics* of_column = of_query + tile % 2 * kQueries;
    if (threadIdx.x < 2 * kQueries) reinterpret_cast<float*>(of_column)[threadIdx.x] = coming;
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody works on the one before any more
    if (tile + 1 < tiles) {
      load_queries(tile + 1);
      coming = statistic_of(tile + 1);
    }
    int ahead = first + first_row - tile * kQueries;  // of the first query is this warp's first key
    if (ahead >= kQueries) continue;                  // all hidden

    float p[M][kQueries / 8][4] = {}, ds[M][kQueries / 8][4] = {};
    multiply_rows<M, kQueries, D>(p, keys + first_row * D, queries);
    multiply_rows<M, kQueries, D>(ds, keys + (kKeys + first_row) * D, queries + kQueries * D);
    if (ahead + 16 * M > 1) hide_later_keys<true>(p, ahead);
    each_result<M, kQueries>([&](int m, int n, int e) {
      RowStatistics query = of_column[8 * n + result_column(lane, e)];
      p[m][n][e] = exp2_fast(p[m][n][e] * c - query.lse);
      ds[m][n][e] = p[m][n][e] * (ds[m][n][e] - query.delta);
    });
    multiply_weights<M, kQueries, D>(dv, p, queries + kQueries * D);
    multiply_weights<M, kQueries, D>(dk, ds, queries);
  }

  each_result<M, D>([&](int m, int n, int e) { dk[m][n][e] *= scale; });
  bf16* to = dqkv + at.packed(head) + width + int64_t(first + first_row) * 3 * width;
  store_results<M, D>(dk, to, 3 * width, at.time - first - first_row, accumulate);
  store_results<M, D>(dv, to + width, 3 * width, at.time - first - first_row, accumulate);
}

template <int D>
struct QueriesPlan {
  static constexpr int kThreads = 128, M = 2;
  static constexpr int kQueries = kThreads / 32 * 16 * M;
  static constexpr int kKeys = D <= 64 ? 64 : 32;
  static_assert(kQueries == kThreads);  // each thread fetches the statistics of one
  static constexpr int kTiles = (2 * kQueries + 4 * kKeys) * D * int(sizeof(bf16));
  static constexpr int kShared = kTiles + kQueries * int(sizeof(RowStatistics));
};

template <int D>
__global__ void __launch_bounds__(QueriesPlan<D>::kThreads, 2)
    attention_backward_queries(const bf16* qkv, const bf16* dy, const RowStatistics* statistics,
                               bf16* dqkv, bool accumulate, Heads at) {
  using Plan = QueriesPlan<D>;
  constexpr int M = Plan::M, kKeys = Plan::kKeys, kQueries = Plan::kQueries;
  MURMUR_SHARED(shared);
  bf16* queries = reinterpret_cast<bf16*>(shared);  // and dy
  bf16* stages = queries + 2 * kQueries * D;        // two of them, each keys and values
  auto* of_query = reinterpret_cast<RowStatistics*>(shared + Plan::kTiles);

  int blocks = tiles_of(at.time, kQueries), head = blockIdx.x / blocks;
  int first = (blocks - 1 - blockIdx.x % blocks) * kQueries;
  int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * 16 * M;
  int width = at.width();
  const bf16* q = qkv + at.packed(head);

  auto load_keys = [&](int tile) { copy_keys<Plan, D>(stages, q + width, width, at.time, tile); };
  copy_pair<kQueries, D, Plan::kThreads>(queries, q + int64_t(first) * 3 * width, 3 * width,
                                         dy + at.plain(head) + int64_t(first) * width, width,
                                         at.time - first);
  load_keys(0);
  int own = first + threadIdx.x;
  of_query[threadIdx.x] =
      own < at.time ? statistics[int64_t(head) * at.time + own] : RowStatistics{};

  float scale = 1 / sqrtf(float(D)), c = kLog2E * scale;
  float dq[M][D / 8][4] = {};
  int tiles = key_tiles(first, kQueries, at.time, kKeys);
  for (int tile = 0; tile < tiles; tile++) {
    copy_async_wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) load_keys(tile + 1);
    const bf16* keys = stages + tile % 2 * 2 * kKeys * D;
    int ahead = tile * kKeys - first - first_row;
    if (ahead >= 16 * M) continue;

    float p[M][kKeys / 8][4] = {}, ds[M][kKeys / 8][4] = {};
    multiply_rows<M, kKeys, D>(p, queries + first_row * D, keys);
    multiply_rows<M, kKeys, D>(ds, queries + (kQueries + first_row) * D, keys + kKeys * D);
    if (ahead + kKeys > 1) hide_later_keys<false>(p, ahead);
    each_result<M, kKeys>([&](int m, int n, int e) {
      RowStatistics query = of_query[first_row + 16 * m + result_row(lane, e)];
      ds[m][n][e] = exp2_fast(p[m][n][e] * c - query.lse) * (ds[m][n][e] - query.delta);
    });
    multiply_weights<M, kKeys, D>(dq, ds, keys);
  }

  each_result<M, D>([&](int m, int n, int e) { dq[m][n][e] *= scale; });
  store_results<M, D>(dq, dqkv + at.packed(head) + int64_t(first + first_row) * 3 * width,
                      3 * width, at.time - first - first_row, accumulate);
}

}  // namespace murmur::cuda
