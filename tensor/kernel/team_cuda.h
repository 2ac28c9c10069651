// tensor/kernel/team_cuda.h - kernels on a GPU: a thread per N neighbouring elements, or a team of
// threads to a row: a few lanes of a warp, a warp, or a block.
#pragma once

#include <algorithm>
#include <cfloat>
#include <type_traits>

#include "tensor/cuda/reduce.h"
#include "tensor/cuda/reductions.h"
#include "tensor/cuda/runtime.h"
#include "tensor/kernel/operands.h"

namespace murmur::cuda {

// e^x, relative error 2^-22 and that of rounding x log2 e.
KERNEL float fast_exp(float x) { return exp2_fast(x * 1.44269504f); }

// kPieces pieces of a row in a thread's registers, packed as in memory.
template <class T, int kPieces, int N>
struct Held {
  using C = float;
  Vector<T, N> piece[kPieces] = {};

  template <int>
  KERNEL Pack<float, N> load(Index at) const {
    Pack<float, N> x;
    piece[at.piece].unpack(x.v);
    return x;
  }
  KERNEL void store(const Pack<float, N>&, Index) const {}
};
// What will be added to, held.
template <class T, int kPieces, int N>
struct HeldAccumulate {
  using C = float;
  T* p;
  Vector<T, N> old[kPieces] = {};

  template <int>
  KERNEL Pack<float, N> load(Index) const {
    return filled<N>(0.f);
  }
  KERNEL void store(Pack<float, N> x, Index at) const {
    float was[N];
    old[at.piece].unpack(was);
    for (int j = 0; j < N; j++) x[j] += was[j];
    write(p + at.i, x);
  }
};
// A thread's own sums over rows, column by column.
template <int kPieces, int N>
struct HeldSum {
  using C = float;
  Pack<float, N>* piece;

  template <int>
  KERNEL Pack<float, N> load(Index at) const {
    return piece[at.piece];
  }
  KERNEL void store(const Pack<float, N>& x, Index at) const { piece[at.piece] = x; }
};

// Who works on a row: lanes of a warp, which hold it in registers, or a block, which holds the
// first of a functor's rows in shared memory, or none.
enum class By { lanes, block_with_copy, block };

// `lanes` neighbouring threads, at work on a row of `size` elements. kPieces: how many packs of N
// neighbours each of them has of it; 0, for blocks: any number.
template <By kBy, int kPieces_, int N_>
struct Team {
  static constexpr int kPieces = kPieces_, N = N_;
  int64_t size;
  int lanes, lane;
  unsigned char* shared;
  mutable bool room = kBy == By::block_with_copy;

  KERNEL bool leads() const { return lane == 0; }
  KERNEL bool owns(int64_t i) const { return int(i) / N % lanes == lane; }

  template <class F, class... X>
  KERNEL void each(const F& f, const X&... x) const {
    each_piece([&](Index at) { apply<N>(f, at, x...); });
  }
  template <class F, class... X>
  KERNEL float sum(const F& f, const X&... x) const {
    float s = 0;
    each([&](auto... v) { s += f(v...); }, x...);
    return reduce(s, Add2{});
  }
  struct MaxSum {
    float max, sum;
  };
  template <class X>
  KERNEL MaxSum max_sum_exp(int64_t count, const X& x) const {  // both grow as x comes in
    float m = -FLT_MAX, s = 0;                                  // finite, so that m - m is 0
    each_piece<4>([&](Index at) {
      Pack<float, N> v = x.template load<N>(at);
      float top = m;
      for (int j = 0; j < N; j++) v[j] = at.i + j < count ? v[j] : -INFINITY;
      for (int j = 0; j < N; j++) top = fmaxf(top, v[j]);
      s *= fast_exp(m - top);
      for (int j = 0; j < N; j++) s += fast_exp(v[j] - top);
      m = top;
    });
    float all = reduce(m, Max2{});
    return {all, reduce(s * fast_exp(m - all), Add2{})};
  }

  // In registers, or the first one in shared memory: a thread meets only pieces it brought itself,
  // without barriers. What fits in neither is read again.
  template <class T>
  KERNEL auto hold(const In<T>& x) const {
    if constexpr (kPieces > 0) {
      Held<T, kPieces, N> held;
      each_piece([&](Index at) { held.piece[at.piece] = Vector<T, N>::at(x.p + at.i); });
      return held;
    } else {
      if (!room) return x;
      T* copy = reinterpret_cast<T*>(shared);
      room = false;
      each_piece<4>([&](Index at) { cuda::write(copy + at.i, read<N>(x.p + at.i)); });
      return In<T>{{copy, 0}};
    }
  }
  template <class T>
  KERNEL auto hold(const Accumulate<T>& y) const {
    if constexpr (kPieces > 0 && kPieces < 8) {  // where registers are left
      HeldAccumulate<T, kPieces, N> held{y.p};
      if (y.adds) {
        each_piece([&](Index at) { held.old[at.piece] = Vector<T, N>::at(y.p + at.i); });
      }
      return held;
    } else {
      return y;
    }
  }
  template <class F, class T, class... X>
  KERNEL auto write(const Out<T>& y, const F& f, const X&... x) const {
    if constexpr (kPieces > 0) {
      Held<T, kPieces, N> held;
      each_piece([&](Index at) {
        Pack<float, N> to;
        int j = 0;
        apply<N>([&](auto... v) { to[j++] = f(v...); }, at, x...);
        held.piece[at.piece] = Vector<T, N>::of(to.v);
        held.piece[at.piece].to(y.p + at.i);
      });
      return held;
    } else {
      each([&](float& to, auto... v) { to = f(v...); }, y, x...);
      return In<T>{{y.p, 0}};
    }
  }
  template <class T>
  KERNEL void clear_from(int64_t first, const Out<T>& y) const {
    int step = lanes * N, own = int(first) / step * step + lane * N;
#pragma unroll 1
    for (; own < int(size); own += step) {
      for (int i = own; i < own + N; i++) {
        if (i >= first) y.put(i, 0);
      }
    }
  }

  // kUnroll: how many pieces are under way at a time, where there may be any number.
  template <int kUnroll = 1, class F>
  KERNEL void each_piece(const F& f) const {
    if constexpr (kPieces > 0) {
#pragma unroll
      for (int k = 0; k < kPieces; k++) {
        int i = (k * lanes + lane) * N;
        if (i < int(size)) f(Index{i, k});
      }
    } else {
#pragma unroll kUnroll
      for (int k = lane; k * N < int(size); k += lanes) f(Index{k * N});
    }
  }

 private:
  template <class F>
  KERNEL float reduce(float v, const F& combine) const {
    if constexpr (kBy != By::lanes) return block_reduce(v, combine);
    // Only these lanes: others may be elsewhere, on a row of another kind.
    uint32_t mask = lanes == 32 ? 0xffffffffu : ((1u << lanes) - 1) << (threadIdx.x % 32 - lane);
    return warp_reduce(v, combine, lanes, mask);
  }
};

// elements ----------------------------------------------------------------------------------------

template <int N, class F, class... X>
__global__ void __launch_bounds__(256) element_kernel(F f, Extent e, bool aligned, X... x) {
  int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (first >= e.cols) return;
  for (int64_t row = blockIdx.y; row < e.rows; row += gridDim.y) {
    [&](const auto&... own) {
      if (aligned && first + N <= e.cols) return apply<N>(f, Index{first}, own...);
#pragma unroll 1
      for (int64_t i = first; i < first + N && i < e.cols; i++) apply<1>(f, Index{i}, own...);
    }(x.at(Row{row, row})...);
  }
}

// f(number of each operand...) for all elements of e.
template <class F, class... X>
void for_each_element(Extent e, const F& f, const X&... x) {
  constexpr int N = 16 / std::max({X::kBytes...});
  int64_t packs = ceil_div(e.cols, N),
          threads = std::clamp<int64_t>(ceil_div(packs, 32) * 32, 32, 256);
  dim3 grid{unsigned(ceil_div(packs, threads)), unsigned(std::min<int64_t>(e.rows, 65535))};
  launch(element_kernel<N, F, X...>, grid, unsigned(threads), 0, f, e, (x.aligned(N) && ...), x...);
}

// rows --------------------------------------------------------------------------------------------

// With sums over rows: warps of a block, a row each, and blocks, two for each multiprocessor of an
// H200. Constants, so that sums have the same bits everywhere.
constexpr int kRowWarps = 8, kSumBlocks = 264;

inline int64_t column_pieces(int64_t rows) {
  return std::min<int64_t>(ceil_div(rows, kRowWarps), kSumBlocks);
}

// What a thread sees of an operand, row by row.
template <class Team, class X>
struct Local {
  KERNEL explicit Local(const Team&, const X&) {}
  KERNEL auto at(const X& x, Row r) const { return x.at(r); }
  KERNEL void finish(const Team&, const X&, float*) const {}
};
// Sums over rows: in registers until the end, then the warps add theirs up one after another, every
// lane its own columns. A row that fits in no registers has its sums in memory.
template <class Team>
struct Local<Team, ColumnSum<float>> {
  static constexpr int kPieces = Team::kPieces, N = Team::N;
  Pack<float, N> sum[kPieces > 0 ? kPieces : 1];

  KERNEL Local(const Team& team, const ColumnSum<float>& x) {
    if constexpr (kPieces > 0) {
      for (auto& s : sum) s = filled<N>(0.f);
    } else {
      team.each([](float& s) { s = 0; }, x.piece(blockIdx.x));
    }
  }
  KERNEL auto at(const ColumnSum<float>& x, Row) {
    if constexpr (kPieces > 0) {
      return HeldSum<kPieces, N>{sum};
    } else {
      return x.piece(blockIdx.x);
    }
  }
  KERNEL void finish(const Team& team, const ColumnSum<float>& x, float* shared) {
    if constexpr (kPieces > 0) {
      for (unsigned warp = 0; warp < blockDim.x / 32; warp++) {
        if (threadIdx.x / 32 == warp) {
          team.each([=](float own, float& all) { all = warp ? all + own : own; },
                    HeldSum<kPieces, N>{sum}, InOut<float>{{shared, 0}});
        }
        __syncthreads();
      }
      float* to = x.piece(blockIdx.x).p;
      for (int i = threadIdx.x; i < int(team.size); i += blockDim.x) to[i] = shared[i];
      __syncthreads();
    }
  }
};

// Blocks that a multiprocessor is to hold at least: short rows leave registers for them.
template <int kPieces>
constexpr int kResident = kPieces == 1                   ? 4
                          : kPieces == 2 || kPieces == 3 ? 2
                                                         : 1;

template <By kBy, int kPieces, int N, class F, class... X>
__global__ void __launch_bounds__(kBy == By::lanes ? 256 : 512, kResident<kPieces>)
    row_kernel(F f, Extent e, int lanes, X... x) {
  MURMUR_SHARED(bytes);
  using Own = Team<kBy, kPieces, N>;
  int per_block = int(blockDim.x) / lanes;
  int first = int(blockIdx.x) * per_block + int(threadIdx.x) / lanes;
  Own team{e.cols, lanes, int(threadIdx.x) % lanes, bytes};
  [&](Local<Own, X>... local) {
    // Not in 64 bits: around such a loop nvcc takes wide stores apart.
    for (int r = first; r < int(e.rows); r += int(gridDim.x) * per_block) {
      Row row{r, r, 0};
      if (e.group > 1) {
        row.outer = uint32_t(r) / uint32_t(e.group);
        row.inner = r - int(row.outer) * e.group;
      }
      team.room = kBy == By::block_with_copy;
      f(team, row, local.at(x, row)...);
    }
    (local.finish(team, x, reinterpret_cast<float*>(bytes)), ...);
  }(Local<Own, X>(team, x)...);
}

// f(team, row, each operand's part of the row...) for all rows of e.
template <class F, class... X>
void for_each_row(Extent e, const F& f, const X&... x) {
  constexpr int N = 16 / std::min({(X::kBytes ? X::kBytes : 16)...});
  constexpr bool kSums = (std::is_same_v<X, ColumnSum<float>> || ...);
  bool aligned = e.cols % N == 0 && (x.aligned(N) && ...);
  auto blocks = [&](int64_t rows_of_block) {
    return unsigned(kSums ? column_pieces(e.rows) : ceil_div(e.rows, rows_of_block));
  };
  // In registers, where a warp can hold a row.
  int64_t packs = e.cols / N;
  int lanes = kSums ? 32 : 1;
  while (lanes < 32 && lanes < packs) lanes *= 2;
  auto in_registers = [&](auto pieces) {
    if (packs > 32 * pieces.value) return false;
    launch(row_kernel<By::lanes, pieces.value, N, F, X...>, blocks(32 * kRowWarps / lanes),
           32 * kRowWarps, kSums ? e.cols * sizeof(float) : 0, f, e, lanes, x...);
    return true;
  };
  auto any = [&](auto... pieces) { return (in_registers(pieces) || ...); };
  using std::integral_constant;
  if (aligned &&
      any(integral_constant<int, 1>{}, integral_constant<int, 2>{}, integral_constant<int, 3>{},
          integral_constant<int, 4>{}, integral_constant<int, 6>{}, integral_constant<int, 8>{}))
    return;
  // Else a block to a row.
  auto by_block = [&](auto* kernel, int n, size_t bytes) {
    int64_t threads = std::clamp<int64_t>(ceil_div(e.cols, 64 * n) * 32, 32, 512);
    launch(kernel, blocks(1), unsigned(threads), bytes, f, e, int(threads), x...);
  };
  size_t bytes = size_t(e.cols) * std::max({X::kBytes...});
  if (!aligned) {
    by_block(row_kernel<By::block, 0, 1, F, X...>, 1, 0);
  } else if (bytes <= 100 * 1024) {  // two rows to a multiprocessor
    by_block(row_kernel<By::block_with_copy, 0, N, F, X...>, N, bytes);
  } else {
    by_block(row_kernel<By::block, 0, N, F, X...>, N, 0);
  }
}

}  // namespace murmur::cuda
