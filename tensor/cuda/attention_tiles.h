// tensor/cuda/attention_tiles.h - tiles of a head in shared memory, and the two products they
// enter.
//
// A tile is some rows of D bf16. The 16-byte chunks of a row are permuted so that the eight rows
// which ldmatrix reads at a time lie in eight different groups of banks. Every product of attention
// is one of two:
//
//   multiply_rows     c += a b^T   a and b are tiles                        (scores)
//   multiply_weights  c += w b     w is in registers, rounded to bf16       (weighted sums of rows)
//
// and the result of the first lies in registers just as the w of the second must. A warp owns M
// times 16 rows of c: with M = 2 every b that comes from shared memory is used twice, and shared
// memory is what limits these kernels.
#pragma once

#include "tensor/cuda/instructions.h"
#include "tensor/cuda/reductions.h"
#include "tensor/cuda/vector.h"

namespace murmur::cuda {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Where heads lie in packed (B, T, 3, H, D) and in plain (B, T, H, D) tensors.
struct Heads {
  int time, heads, size;
  constexpr int width() const { return heads * size; }
  constexpr int padded() const { return int(ceil_div(time, 128)) * 128; }
  constexpr int64_t plain(int head) const {
    return int64_t(head / heads) * time * width() + head % heads * size;
  }
  constexpr int64_t packed(int head) const {
    return int64_t(head / heads) * time * 3 * width() + head % heads * size;
  }
};

constexpr int tiles_of(int rows, int rows_per_tile) { return int(ceil_div(rows, rows_per_tile)); }
// Queries [first, first + queries) see keys of tiles [0, this).
constexpr int key_tiles(int first, int queries, int time, int keys_per_tile) {
  return tiles_of(first + queries < time ? first + queries : time, keys_per_tile);
}
// Keys from `first_key` on are seen by queries of this tile and later ones.
constexpr int first_query_tile(int first_key, int queries_per_tile) {
  return first_key / queries_per_tile;
}

// Element at which a chunk of 8 lies in a tile. Shifting `row` by a multiple of 8 adds that many D.
template <int D>
constexpr int tile_offset(int row, int chunk) {
  static_assert(D % 32 == 0);
  constexpr int kGroup = D % 64 == 0 ? 8 : 4;  // chunks that change places
  int turn = row / (8 / kGroup) % kGroup;
  return row * D + (chunk / kGroup * kGroup + (chunk % kGroup ^ turn)) * 8;
}

// The row and chunk that a lane addresses for ldmatrix in a block of 16 rows and 2 chunks. Register
// i then holds of matrix i % 2 down the rows and i / 2 along them.
constexpr int lane_row(int lane) { return lane % 16; }
constexpr int lane_chunk(int lane) { return lane / 16; }

// Row and column of element e of a 16x8 result.
constexpr int result_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
constexpr int result_column(int lane, int e) { return lane % 4 * 2 + e % 2; }

// f(m, n, e) for every element, unrolled: the indices become registers.
template <int M, int N, class F>
__device__ void each_result(const F& f) {
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) f(m, n, e);
    }
  }
}

// Scores of keys later than the query become -inf. `ahead`: of the first query is the first key.
template <bool kRowsAreKeys, int M, int N>
__device__ void hide_later_keys(float (&s)[M][N][4], int ahead) {
  int lane = threadIdx.x % 32;
  each_result<M, 8 * N>([&](int m, int n, int e) {
    int row = 16 * m + result_row(lane, e), column = 8 * n + result_column(lane, e);
    if (ahead + (kRowsAreKeys ? row - column : column - row) > 0) s[m][n][e] = -INFINITY;
  });
}

// Starts copying kRows rows, of which `rows` exist; the others become zeros.
template <int kRows, int D, int kThreads>
__device__ void copy_tile(bf16* tile, const bf16* from, int stride, int rows) {
  constexpr int kAcross = D % 64 == 0 ? 8 : 4, kDown = kThreads / kAcross;
  static_assert(kRows % kDown == 0 && kDown % 8 == 0);
  int row = threadIdx.x / kAcross, chunk = threadIdx.x % kAcross;
  from += int64_t(row) * stride + chunk * 8;
#pragma unroll
  for (int i = 0; i < kRows; i += kDown) {
#pragma unroll
    for (int j = 0; j < D / 8; j += kAcross) {
      copy_async(tile + i * D + tile_offset<D>(row, chunk + j), from + j * 8, row + i < rows);
    }
    from += int64_t(kDown) * stride;
  }
}

// Rows from `first` on of a head's k and v, or of its q and dy: two tiles, one after the other.
template <int kRows, int D, int kThreads, bool kKeys>
__device__ void copy_pair(bf16* tiles, const bf16* q, const bf16* dy, const Heads& at, int first) {
  int width = at.width();
  const bf16* a = q + int64_t(first) * 3 * width + (kKeys ? width : 0);
  const bf16* b = kKeys ? a + width : dy + int64_t(first) * width;
  copy_tile<kRows, D, kThreads>(tiles, a, 3 * width, at.time - first);
  copy_tile<kRows, D, kThreads>(tiles + kRows * D, b, kKeys ? 3 * width : width, at.time - first);
}

template <int M, int N, int D>
__device__ void multiply_rows(float (&c)[M][N / 8][4], const bf16* a, const bf16* b) {
  int lane = threadIdx.x % 32;
#pragma unroll 4  // after which the permutation starts again; saves registers
  for (int k = 0; k < D / 16; k++) {
    uint32_t left[M][4], right[4];
#pragma unroll
    for (int m = 0; m < M; m++) {
      load_matrices(left[m], a + tile_offset<D>(16 * m + lane_row(lane), 2 * k + lane_chunk(lane)));
    }
#pragma unroll
    for (int n = 0; n < N / 16; n++) {
      load_matrices(right, b + tile_offset<D>(16 * n + lane_row(lane), 2 * k + lane_chunk(lane)));
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma(c[m][2 * n], left[m], right[0], right[2]);
        mma(c[m][2 * n + 1], left[m], right[1], right[3]);
      }
    }
  }
}

template <int M, int N, int D>
__device__ void multiply_weights(float (&c)[M][D / 8][4], const float (&weights)[M][N / 8][4],
                                 const bf16* b) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < N / 16; k++) {
    uint32_t left[M][4], right[4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float* pair = weights[m][2 * k + i / 2] + i % 2 * 2;
        left[m][i] = pack(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
      load_matrices_transposed(
          right, b + tile_offset<D>(16 * k + lane_row(lane), 2 * d + lane_chunk(lane)));
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma(c[m][2 * d], left[m], right[0], right[1]);
        mma(c[m][2 * d + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// The rows of scores that a warp has seen: their maxima, and this lane's share of their sums.
template <int M>
struct OnlineSoftmax {
  float top[M][2], sum[M][2] = {};

  __device__ OnlineSoftmax() {
    for (auto& pair : top) pair[0] = pair[1] = -INFINITY;
  }
  // s <- 2^(c s - c max s); where the maximum has grown, what was summed before is to shrink.
  template <int N>
  __device__ void add(float (&s)[M][N][4], float c, float (&shrink)[M][2]) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
      float &t = top[i / 2][i % 2], now = t;
#pragma unroll
      for (int n = 0; n < N; n++) {
        const float* pair = s[i / 2][n] + i % 2 * 2;
        now = fmaxf(now, fmaxf(pair[0], pair[1]));
      }
      now = warp_reduce(now, Max2{}, 4);
      shrink[i / 2][i % 2] = exp2_fast(c * (t - now));
      sum[i / 2][i % 2] *= shrink[i / 2][i % 2];
      t = now;
    }
    each_result<M, 8 * N>([&](int m, int n, int e) {
      s[m][n][e] = exp2_fast(s[m][n][e] * c - top[m][e / 2] * c);
      sum[m][e / 2] += s[m][n][e];
    });
  }
  // Writes the log-sum-exp of the rows that exist, and divides what was summed.
  template <int N>
  __device__ void finish(float (&out)[M][N][4], float c, float* lse, int rows) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
      float total = warp_reduce(sum[i / 2][i % 2], Add2{}, 4);
      int row = i / 2 * 16 + result_row(lane, i % 2 * 2);
      if (lane % 4 == 0 && row < rows) lse[row] = kLn2 * (c * top[i / 2][i % 2] + log2f(total));
      sum[i / 2][i % 2] = 1 / total;
    }
    each_result<M, 8 * N>([&](int m, int n, int e) { out[m][n][e] *= sum[m][e / 2]; });
  }
};

// Four words in each of the four lanes of a row: word j of lane i becomes word i of lane j.
__device__ inline void exchange(uint32_t (&words)[4]) {
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      uint32_t &a = words[i * (3 - mask)], &b = words[i * (3 - mask) + mask];
      bool upper = threadIdx.x & mask;
      uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? a : b, mask);
      a = upper ? other : a;
      b = upper ? b : other;
    }
  }
}

// Writes (or adds) those of this warp's rows that exist, 16 bytes at a time.
template <int M, int N>
__device__ void store_results(const float (&c)[M][N][4], bf16* to, int stride, int rows,
                              bool accumulate) {
  using Chunk = Vector<bf16, 8>;
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2 * M; i++) {
    int row = i / 2 * 16 + result_row(lane, i % 2 * 2);
    bf16* place = to + int64_t(row) * stride + lane % 4 * 8;
#pragma unroll
    for (int n = 0; n < N; n += 4) {
      Chunk chunk = {};
      if (accumulate) {
        if (row < rows) chunk = Chunk::at(place + n * 8);
        exchange(chunk.words);
      }
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const float* pair = c[i / 2][n + k] + i % 2 * 2;
        uint32_t old = chunk.words[k];
        chunk.words[k] = pack(pair[0] + bit_cast<float>(old << 16),
                              pair[1] + bit_cast<float>(old & 0xffff0000u));
      }
      exchange(chunk.words);
      if (row < rows) chunk.to(place + n * 8);
    }
  }
}

}  // namespace murmur::cuda
