// tensor/cuda/gather.cu - rows of a table by token, and the gradient back into the table.
//
// Backward sorts the tokens, so that what goes to one row of the table is neighbours, in the order
// of the tokens. Chunks of sorted tokens are added up side by side; where a run of one token
// crosses a chunk's border, its parts meet in a second kernel. Chunks have one size: no sum depends
// on the machine.
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/elementwise.h"

namespace murmur {
namespace cuda {

template <class T>
struct Gather {
  static constexpr int N = kNeighbours<T>;
  const int32_t* tokens;
  uint32_t table_rows, times;
  Rows<T> table, positions, y;
  __device__ void operator()(const Place& p) const {
    float v[N], position[N];
    Place from = p, when = p;
    from.row = uint32_t(tokens[p.row]);
    when.row = uint32_t(p.row) % times;
    positions.load_if(positions.data, position, when);
    if (from.row < table_rows) {
      table.load(v, from);
    } else {
      for (float& x : v) x = NAN;  // a kernel can throw nothing
    }
    for (int i = 0; i < N; i++) v[i] += position[i];
    y.store(v, p);
  }
};

// Token, then position: keys are all different, so every sort is a stable one.
using Key = uint64_t;
constexpr int kTile = 256, kChunk = 64;

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

// Merges pairs of sorted runs: a key goes as far into the pair as keys of both are smaller.
__global__ void __launch_bounds__(kTile)
    merge_runs(const Key* from, int64_t n, int64_t width, Key* to) {
  int64_t i = int64_t(blockIdx.x) * kTile + threadIdx.x;
  if (i >= n) return;
  Key key = from[i];
  int64_t run = i / width, other = (run ^ 1) * width;
  int64_t low = other < n ? other : n, high = other + width < n ? other + width : n, begin = low;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (from[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  to[run / 2 * 2 * width + (i - run * width) + (low - begin)] = key;
}

struct Sorted {
  const Key* keys;
  int64_t n;
  __device__ uint32_t token(int64_t i) const { return uint32_t(keys[i] >> 32); }
  __device__ bool joined(int64_t i) const {  // with the one before
    return i > 0 && i < n && token(i - 1) == token(i);
  }
};

// A block adds up a chunk. Whole runs go to the table; open_runs[chunk, 0] gets the end of a run
// that began in an earlier chunk, open_runs[chunk, 1] the beginning of one that goes on.
template <class T>
__global__ void __launch_bounds__(256)
    add_chunks(Sorted sorted, Rows<T> dy, Rows<float> table, uint32_t table_rows, int64_t cols,
               bool accumulate, bool wide, float* open_runs) {
  constexpr int N = kNeighbours<T>, kAhead = 4;
  Place p = place(0, (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, cols, N, wide);
  if (p.at >= cols) return;
  int64_t begin = int64_t(blockIdx.x) * kChunk;
  int64_t end = begin + kChunk < sorted.n ? begin + kChunk : sorted.n;
  bool continued = sorted.joined(begin);
  float sum[N] = {};
  for (int64_t group = begin; group < end; group += kAhead) {
    float v[kAhead][N];
    for (int k = 0; k < kAhead; k++) {
      if (group + k >= end) break;
      p.row = uint32_t(sorted.keys[group + k]);
      dy.load(v[k], p);
    }
    for (int k = 0; k < kAhead; k++) {
      int64_t i = group + k;
      if (i >= end) break;
      for (int j = 0; j < N; j++) sum[j] += v[k][j];
      bool goes_on = sorted.joined(i + 1);
      if (goes_on && i + 1 < end) continue;
      p.row = sorted.token(i);
      if (continued || goes_on) {
        Rows<float>{open_runs, cols}.store(sum,
                                           place(2 * blockIdx.x + !continued, p.at, cols, N, wide));
      } else if (p.row < table_rows) {
        float old[N];
        table.load_if(accumulate, old, p);
        for (int j = 0; j < N; j++) sum[j] += old[j];
        table.store(sum, p);
      }
      continued = false;
      for (float& x : sum) x = 0;
    }
  }
}

// Runs that cross borders: the block of the chunk where a run begins adds up its parts.
__global__ void __launch_bounds__(256)
    join_chunks(Sorted sorted, const float* open_runs, Rows<float> table, uint32_t table_rows,
                int64_t cols, bool accumulate) {
  int64_t c = int64_t(blockIdx.y) * blockDim.x + threadIdx.x, chunk = blockIdx.x;
  int64_t begin = chunk * kChunk, next = begin + kChunk;
  if (c >= cols || !sorted.joined(next)) return;
  uint32_t token = sorted.token(next);
  bool began_before = sorted.joined(begin) && sorted.token(begin) == token;
  if (began_before || token >= table_rows) return;
  float sum = open_runs[(2 * chunk + 1) * cols + c];
  for (; sorted.joined(next) && sorted.token(next) == token; next += kChunk) {
    sum += open_runs[2 * (next / kChunk) * cols + c];
  }
  float* to = table.row(token) + c;
  *to = accumulate ? *to + sum : sum;
}

}  // namespace cuda

using namespace cuda;

void CudaEngine::gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
                        Tensor& y) const {
  Doing doing("gather", {&table, &tokens, &positions, &y});
  int64_t n = tokens.numel(), cols = table.cols(), times = tokens.cols();
  check(y.numel() == n * cols && y.dtype() == table.dtype() && y.contiguous(),
        [&] { return "gather: " + text(table) + " into " + text(y); });
  check(!positions || (positions.cols() == cols && positions.rows() >= times), [&] {
    return "gather: " + std::to_string(times) + " positions wanted, table of positions " +
           text(positions);
  });
  Extent e{n, cols};
  dispatch_single(table.dtype(), "gather", [&](auto type) {
    using T = decltype(type);
    launch_elementwise(Gather<T>{tokens.data<int32_t>(), uint32_t(table.rows()), uint32_t(times),
                                 rows_of<T>(table), rows_of<T>(positions), rows_of<T>(y, e)},
                       e, {&table, &positions, &y});
  });
}

void CudaEngine::gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) const {
  Doing doing("gather backward", {&tokens, &dy, &dtable.tensor});
  int64_t n = tokens.numel(), cols = dy.cols();
  Tensor& table = dtable.tensor;
  check(table.cols() == cols && dy.rows() == n && table.dtype() == compute_type(dy.dtype()),
        [&] { return "gather backward: " + text(dy) + " into " + text(table); });
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
  int64_t chunks = ceil_div(n, kChunk);
  Tensor open_runs({chunks, 2, cols}, DType::f32, Device::cuda);
  Sorted sorted{static_cast<const Key*>(keys.raw()), n};
  auto grid = [&](int64_t places, int64_t threads) {
    return dim3{unsigned(chunks), unsigned(ceil_div(places, threads))};
  };
  dispatch_single(dy.dtype(), "gather", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    int64_t places = ceil_div(cols, N), threads = std::min<int64_t>(256, ceil_div(places, 32) * 32);
    bool wide_rows =
        wide(N, {n, cols}, {&dy}) && wide(N, {table.rows(), cols}, {&table}) && cols % N == 0;
    launch(add_chunks<T>, grid(places, threads), unsigned(threads), 0, sorted, rows_of<T>(dy),
           rows_of<float>(table), uint32_t(table.rows()), cols, dtable.accumulate, wide_rows,
           open_runs.data<float>());
  });
  int64_t threads = std::min<int64_t>(256, ceil_div(cols, 32) * 32);
  launch(join_chunks, grid(cols, threads), unsigned(threads), 0, sorted, open_runs.data<float>(),
         rows_of<float>(table), uint32_t(table.rows()), cols, dtable.accumulate);
}

}  // namespace murmur
