// tensor/cuda/attention_hopper.cu - attention_forward.h and attention_backward.h for Hopper; the
// formulas stand there (division of work: FlashAttention-3, Shah et al., 2024).
//
// A block is 128 rows of one head. Two warpgroups own 64 of them each and multiply; a third one
// only fetches tiles, two ahead, and leaves its registers to the others. Weights go from scores to
// their product in registers. The maps know where a sequence ends: what lies beyond is zeros.
#include <type_traits>

#include "tensor/cuda/attention_hopper.h"
#include "tensor/cuda/hopper.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {
namespace {

constexpr int kRows = 128, kStages = 2, kMathWarps = 8;
constexpr int kThreads = kWarpgroup + 32 * kMathWarps;
constexpr int kFetchRegisters = 24, kMathRegisters = 240;
static_assert(kFetchRegisters + 2 * kMathRegisters <= 65536 / kWarpgroup);

// Starts fetching a tile of kTileRows x D: panels of 64 columns, in boxes of 64 rows.
template <int D, int kTileRows>
__device__ void fetch(bf16* tile, const TileMap& map, int column, int row, int batch,
                      Mbarrier& full) {
  for (int panel = 0; panel < D / kPanel; panel++) {
    for (int r = 0; r < kTileRows; r += 64) {
      load_tile(tile + (panel * kTileRows + r) * kPanel, map, column + panel * kPanel, row + r,
                batch, full);
    }
  }
}

// Starts s (64 x N) = a b^T, of 64 rows of an own tile and a tile of N rows.
template <int D, int N>
__device__ void start_scores(float (&s)[N / 8][4], const bf16* a, const bf16* b) {
  fence_products();
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    multiply<Major::k, Major::k>(s, describe(a + k / kPanel * kRows * kPanel + k % kPanel),
                                 describe(b + k / kPanel * N * kPanel + k % kPanel), k > 0);
  }
  commit_products();
}

// Starts c (64 x D) (+)= w b, with weights in registers and a tile of N rows.
template <int D, int N>
__device__ void start_sums(float (&c)[D / 8][4], const uint32_t (&w)[N / 16][4], const bf16* b,
                           bool accumulate) {
  fence_products();
#pragma unroll
  for (int k = 0; k < N / 16; k++) {
    multiply<Major::outer>(c, w[k], describe(b + k * 16 * kPanel, N * kPanel * int(sizeof(bf16))),
                           accumulate || k > 0);
  }
  commit_products();
}

template <int N>
__device__ void round_weights(uint32_t (&w)[N / 16][4], const float (&s)[1][N / 8][4]) {
#pragma unroll
  for (int i = 0; i < N / 4; i++) {
    const float* pair = s[0][i / 2] + i % 2 * 2;
    w[i / 4][i % 4] = pack(pair[0], pair[1]);
  }
}

// forward ----------------------------------------------------------------------------------------

template <int D>
struct ForwardShared {
  bf16 queries[kRows * D], keys[kStages][kRows * D], values[kStages][kRows * D];
  Mbarrier queries_full, keys_full[kStages], keys_empty[kStages], values_full[kStages],
      values_empty[kStages];
};

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    hopper_forward(const __grid_constant__ TileMap qkv, bf16* y, float* lse, Heads at) {
#ifdef MURMUR_HOPPER
  MURMUR_SHARED(raw);
  auto& shared = *reinterpret_cast<ForwardShared<D>*>(raw);
  const int head = blockIdx.y, batch = blockIdx.z, width = int(at.width());
  const int first = (gridDim.x - 1 - blockIdx.x) * kRows;  // queries with most keys start
  const int tiles = first / kRows + 1;                     // of keys, the diagonal one first
  if (threadIdx.x == 0) {
    barrier_init(shared.queries_full, 1);
    for (int s = 0; s < kStages; s++) {
      barrier_init(shared.keys_full[s], 1);
      barrier_init(shared.values_full[s], 1);
      barrier_init(shared.keys_empty[s], kMathWarps);
      barrier_init(shared.values_empty[s], kMathWarps);
    }
    fence_async();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    shrink_registers<kFetchRegisters>();
    if (threadIdx.x == 0) {
      auto fetch_next = [&](int tile, int part, bf16* to, Mbarrier& full) {
        arrive_expecting(full, sizeof shared.queries);
        fetch<D, kRows>(to, qkv, part * width + head * D, first - tile * kRows, batch, full);
      };
      fetch_next(0, 0, shared.queries, shared.queries_full);
      for (int tile = 0; tile < tiles; tile++) {
        int s = tile % kStages, before = tile / kStages % 2 ^ 1;
        wait(shared.keys_empty[s], before);
        fetch_next(tile, 1, shared.keys[s], shared.keys_full[s]);
        wait(shared.values_empty[s], before);
        fetch_next(tile, 2, shared.values[s], shared.values_full[s]);
      }
    }
  } else {
    grow_registers<kMathRegisters>();
    const int group = threadIdx.x / kWarpgroup - 1;
    const int first_row = 64 * group + threadIdx.x % kWarpgroup / 32 * 16;  // of this warp
    const float c = kLog2E / sqrtf(float(D));
    bf16* queries = shared.queries + 64 * group * kPanel;
    float s[1][kRows / 8][4], out[1][D / 8][4], shrink[1][2];
    OnlineSoftmax<1> softmax;
    uint32_t weights[kRows / 16][4];

    auto wait_for_keys = [&](int tile) {
      wait(shared.keys_full[tile % kStages], tile / kStages % 2);
    };
    auto scores_of = [&](int tile) {
      start_scores<D, kRows>(s[0], queries, shared.keys[tile % kStages]);
    };
    auto sums_of = [&](int tile) {
      wait(shared.values_full[tile % kStages], tile / kStages % 2);
      start_sums<D, kRows>(out[0], weights, shared.values[tile % kStages], tile > 0);
    };
    auto exponentials = [&] { softmax.add(s, c, shrink); };

    wait(shared.queries_full, 0);
    wait_for_keys(0);
    scores_of(0);
    wait_products<0>();
    release(shared.keys_empty[0]);
    hide_later_keys<false>(s, -first_row);
    exponentials();
    if (tiles > 1) wait_for_keys(1);
    round_weights<kRows>(weights, s);
    for (int tile = 1; tile < tiles; tile++) {
      scores_of(tile);    // while these products run on,
      sums_of(tile - 1);  // and these,
      wait_products<1>();
      release(shared.keys_empty[tile % kStages]);
      exponentials();  // the exponentials of the first are made
      // Waited for here, because ptxas would make the exponentials later, but not past a loop.
      if (tile + 1 < tiles) wait_for_keys(tile + 1);
      wait_products<0>();
      release(shared.values_empty[(tile - 1) % kStages]);
      each_result<1, D>([&](int, int n, int e) { out[0][n][e] *= shrink[0][e / 2]; });
      round_weights<kRows>(weights, s);
    }
    sums_of(tiles - 1);
    wait_products<0>();

    const int64_t row = int64_t(batch) * at.time + first + first_row;
    const int rows = at.time - first - first_row;  // that exist
    lse += (int64_t(batch) * at.heads + head) * at.time + first + first_row;
    softmax.finish(out, c, lse, rows);
    store_results(out, y + row * width + head * D, width, rows, false);
  }
#endif
}

// backward ---------------------------------------------------------------------------------------

constexpr int kOthers = 64;  // rows of a tile that passes by

template <int D>
struct BackwardShared {
  bf16 own[2][kRows * D];                      // k and v, or q and dy
  bf16 passing[kStages][2][kOthers * D];       // q and dy, or k and v
  RowStatistics statistics[kStages][kOthers];  // of queries that pass by
  Mbarrier own_full, full[kStages], empty[kStages];
};

// kKeys: the block owns keys and makes dk and dv, tiles of queries pass by, all is transposed.
// Else: it owns queries and makes dq.
template <int D, bool kKeys>
__global__ void __launch_bounds__(kThreads, 1)
    hopper_backward(const __grid_constant__ TileMap qkv, const __grid_constant__ TileMap dy,
                    const RowStatistics* statistics, bf16* dqkv, bool accumulate, Heads at) {
#ifdef MURMUR_HOPPER
  MURMUR_SHARED(raw);
  auto& shared = *reinterpret_cast<BackwardShared<D>*>(raw);
  const int head = blockIdx.y, batch = blockIdx.z, width = int(at.width());
  const int first = (kKeys ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * kRows;
  const int begin = kKeys ? first_query_tile(first, kOthers) : 0;
  const int end = kKeys ? tiles_of(at.time, kOthers) : key_tiles(first, kRows, at.time, kOthers);
  statistics += (int64_t(batch) * at.heads + head) * at.padded();
  if (threadIdx.x == 0) {
    barrier_init(shared.own_full, 1);
    for (int s = 0; s < kStages; s++) {
      barrier_init(shared.full[s], kKeys ? 33 : 1);  // the tiles, and 32 lanes of statistics
      barrier_init(shared.empty[s], kMathWarps);
    }
    fence_async();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    shrink_registers<kFetchRegisters>();
    if (threadIdx.x == 0) {
      const int q = head * D, k = q + width, v = k + width, dout = q;  // columns of their maps
      arrive_expecting(shared.own_full, sizeof shared.own);
      fetch<D, kRows>(shared.own[0], qkv, kKeys ? k : q, first, batch, shared.own_full);
      fetch<D, kRows>(shared.own[1], kKeys ? qkv : dy, kKeys ? v : dout, first, batch,
                      shared.own_full);
      for (int i = 0; i < end - begin; i++) {
        auto& tile = shared.passing[i % kStages];
        Mbarrier& full = shared.full[i % kStages];
        const int row = (begin + i) * kOthers;
        wait(shared.empty[i % kStages], i / kStages % 2 ^ 1);
        arrive_expecting(full, sizeof tile);
        fetch<D, kOthers>(tile[0], qkv, kKeys ? q : k, row, batch, full);
        fetch<D, kOthers>(tile[1], kKeys ? dy : qkv, kKeys ? dout : v, row, batch, full);
      }
    } else if (kKeys && threadIdx.x / 32 == 1) {
      for (int i = 0; i < end - begin; i++) {
        wait(shared.empty[i % kStages], i / kStages % 2 ^ 1);
        for (int j = threadIdx.x % 32; j < kOthers; j += 32) {
          shared.statistics[i % kStages][j] = statistics[(begin + i) * kOthers + j];
        }
        arrive(shared.full[i % kStages]);
      }
    }
  } else {
    grow_registers<kMathRegisters>();
    const int group = threadIdx.x / kWarpgroup - 1, lane = threadIdx.x % 32;
    const int first_row = 64 * group + threadIdx.x % kWarpgroup / 32 * 16;  // of this warp
    const float scale = 1 / sqrtf(float(D)), c = kLog2E * scale;
    bf16* own[2] = {shared.own[0] + 64 * group * kPanel, shared.own[1] + 64 * group * kPanel};
    RowStatistics of_row[2] = {};
    if constexpr (!kKeys) {
      for (int i = 0; i < 2; i++)
        of_row[i] = statistics[first + first_row + result_row(lane, 2 * i)];
    }
    float sum[1][D / 8][4], sum_of_values[1][D / 8][4];  // dk or dq; dv
    wait(shared.own_full, 0);
    for (int i = 0; i < end - begin; i++) {
      auto& tile = shared.passing[i % kStages];
      const RowStatistics* of_column = shared.statistics[i % kStages];
      float p[1][kOthers / 8][4], ds[1][kOthers / 8][4];
      uint32_t weights[kOthers / 16][4];
      auto statistics_of = [&](int n, int e) -> const RowStatistics& {
        return kKeys ? of_column[8 * n + result_column(lane, e)] : of_row[e / 2];
      };
      wait(shared.full[i % kStages], i / kStages % 2);
      start_scores<D, kOthers>(p[0], own[0], tile[0]);
      start_scores<D, kOthers>(ds[0], own[1], tile[1]);
      wait_products<1>();
      int other = (begin + i) * kOthers, mine = first + first_row;
      int ahead = kKeys ? mine - other : other - mine;  // of the first query is the first key
      if (ahead + (kKeys ? 16 : kOthers) > 1) hide_later_keys<kKeys>(p, ahead);
      each_result<1, kOthers>([&](int, int n, int e) {
        p[0][n][e] = exp2_fast(p[0][n][e] * c - statistics_of(n, e).lse);
      });
      if constexpr (kKeys) {
        round_weights<kOthers>(weights, p);
        start_sums<D, kOthers>(sum_of_values[0], weights, tile[1], i > 0);
        wait_products<1>();
      } else {
        wait_products<0>();
      }
      each_result<1, kOthers>([&](int, int n, int e) {
        ds[0][n][e] = p[0][n][e] * (ds[0][n][e] - statistics_of(n, e).delta);
      });
      uint32_t more_weights[kOthers / 16][4];  // the first ones may still be in use
      round_weights<kOthers>(more_weights, ds);
      start_sums<D, kOthers>(sum[0], more_weights, tile[0], i > 0);
      wait_products<0>();
      release(shared.empty[i % kStages]);
    }
    each_result<1, D>([&](int, int n, int e) { sum[0][n][e] *= scale; });
    const int64_t row = int64_t(batch) * at.time + first + first_row;
    const int rows = at.time - first - first_row;  // that exist
    bf16* to = dqkv + row * 3 * width + head * D;
    store_results(sum, to + (kKeys ? width : 0), 3 * width, rows, accumulate);
    if constexpr (kKeys) {
      store_results(sum_of_values, to + 2 * width, 3 * width, rows, accumulate);
    }
  }
#endif
}

// launches ---------------------------------------------------------------------------------------

// Over (B, T, columns), in boxes of 64 x 64.
TileMap map_of(const Tensor& x, const Heads& at) {
  int64_t columns = x.numel() / x.shape()[0] / at.time;
  return tile_map(x.data<bf16>(), x.shape()[0], at.time, columns, columns, 64);
}

// Blocks for every tile of every head of every sequence of qkv.
dim3 grid_of(const Tensor& qkv, const Heads& at) {
  return {unsigned(tiles_of(at.time, kRows)), unsigned(at.heads), unsigned(qkv.shape()[0])};
}

}  // namespace

void hopper_attention(const Heads& at, const Tensor& qkv, Tensor& y, Tensor& lse) {
  auto run = [&](auto* kernel, size_t shared) {
    launch(kernel, grid_of(qkv, at), kThreads, shared, map_of(qkv, at), y.data<bf16>(),
           lse.data<float>(), at);
  };
  at.size == 64 ? run(hopper_forward<64>, sizeof(ForwardShared<64>))
                : run(hopper_forward<128>, sizeof(ForwardShared<128>));
}

void hopper_attention_backward(const Heads& at, const Tensor& qkv, const Tensor& dy,
                               const RowStatistics* statistics, Into dqkv) {
  auto run = [&](auto* kernel, size_t shared) {
    launch(kernel, grid_of(qkv, at), kThreads, shared, map_of(qkv, at), map_of(dy, at), statistics,
           dqkv.tensor.data<bf16>(), dqkv.accumulate, at);
  };
  auto run_both = [&]<int D>(std::integral_constant<int, D>) {
    run(hopper_backward<D, true>, sizeof(BackwardShared<D>));
    run(hopper_backward<D, false>, sizeof(BackwardShared<D>));
  };
  at.size == 64 ? run_both(std::integral_constant<int, 64>{})
                : run_both(std::integral_constant<int, 128>{});
}

}  // namespace murmur::cuda
