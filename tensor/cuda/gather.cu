// tensor/cuda/gather.cu - the gradient of rows that were taken out of a table, back into it.
//
// The tokens are sorted, so that what goes to one row of the table is neighbours, in the order of
// the tokens. The warps of a block add up such a run together: no sum depends on the machine.
#include "tensor/checks.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

// Token, then position: keys are all different, so every sort is a stable one.
using Key = uint64_t;
constexpr int kTile = 256, kChunk = 16;

// Sorts tiles: a key goes where as many stand before it as are smaller.
__global__ void __launch_bounds__(kTile) sort_tiles(const int32_t* tokens, int64_t n, Key* keys) {
  __shared__ Key tile[kTile];
  int64_t first = int64_t(blockIdx.x) * kTile, i = first + threadIdx.x;
  Key key = i < n ? Key(uint32_t(tokens[i])) << 32 | Key(i) : ~Key(0);
  tile[threadIdx.x] = key;
  __syncthreads();
  int smaller = 0;
  for (int k = 0; k < kTile; k++) smaller += tile[k] < key;
  if (i < n) keys[first + smaller] = key;
}

// The first of sorted keys [low, high) that is not smaller than `key`.
__device__ inline int64_t not_smaller(const Key* keys, int64_t low, int64_t high, Key key) {
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Merges pairs of sorted runs: a key goes as far into the pair as keys of both are smaller.
__global__ void __launch_bounds__(kTile)
    merge_runs(const Key* from, int64_t n, int64_t width, Key* to) {
  int64_t i = int64_t(blockIdx.x) * kTile + threadIdx.x;
  if (i >= n) return;
  int64_t run = i / width, other = min((run ^ 1) * width, n);
  int64_t smaller = not_smaller(from, other, min(other + width, n), from[i]) - other;
  to[run / 2 * 2 * width + (i - run * width) + smaller] = from[i];
}

// A block adds up the runs of one token that begin in its chunk, 32 N columns of them.
template <class T>
__global__ void __launch_bounds__(32 * kSumWarps)
    add_runs(const Key* keys, int64_t n, Rows<T> dy, bool wide, Target table, uint32_t rows,
             int64_t cols) {
  constexpr int N = kNeighbours<T>;
  auto token = [=](int64_t i) { return uint32_t(keys[i] >> 32); };
  Place to = place(0, (int64_t(blockIdx.y) * 32 + threadIdx.x % 32) * N, cols, N, wide);
  int64_t first = int64_t(blockIdx.x) * kChunk, last = min(first + kChunk, n);
  for (int64_t begin = first; begin < last; begin++) {
    to.row = token(begin);
    if (to.row >= rows || (begin > 0 && token(begin - 1) == to.row)) continue;
    int64_t most = 1;  // runs are short as a rule: their ends are near
    while (begin + most < n && token(begin + most) == to.row) most *= 2;
    int64_t end = not_smaller(keys, begin, min(begin + most, n), Key(to.row + 1) << 32);
    float sum[N];
    auto row = [=](int64_t i) { return uint32_t(keys[i]); };
    if (!sum_by_warps<kSumWarps>(sum, dy, to, begin, end, row)) continue;
    table.take(sum, to);
  }
}

void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) {
  Tensor& table = dtable.tensor;
  check_gather_backward(tokens, dy, table);
  int64_t n = tokens.numel(), cols = dy.cols();
  if (!dtable.accumulate) fill(table, 0);
  if (n == 0 || cols == 0) return;
  Tensor keys({n}, DType::f64, Device::cuda), spare({n}, DType::f64, Device::cuda);  // 8 bytes each
  unsigned tiles = unsigned(ceil_div(n, kTile));
  launch(sort_tiles, tiles, kTile, 0, tokens.data<int32_t>(), n, static_cast<Key*>(keys.raw()));
  for (int64_t width = kTile; width < n; width *= 2) {
    launch(merge_runs, tiles, kTile, 0, static_cast<const Key*>(keys.raw()), n, width,
           static_cast<Key*>(spare.raw()));
    std::swap(keys, spare);
  }
  dispatch_single(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Rows<T> from = rows_of<T>(dy);
    Target to{rows_of<float>(table), dtable.accumulate};
    launch(add_runs<T>, dim3{unsigned(ceil_div(n, kChunk)), unsigned(ceil_div(cols, 32 * N))},
           32 * kSumWarps, 0, static_cast<const Key*>(keys.raw()), n, from,
           from.wide(N) && to.y.wide(N), to, uint32_t(table.rows()), cols);
  });
}

}  // namespace murmur::cuda
