// tensor/cuda/norm.cu - layer norm and RMS norm; the formulas are in tensor/ops/norm.h.
//
// Where a row fits into the registers of a warp, it is read once: forward adds the residual on the
// way, backward makes dx and the row's share of dgain and dbias. Any other row is worked on by a
// block from global memory.
#include <type_traits>

#include "tensor/checks.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/team.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/norm.h"

namespace murmur::cuda {

constexpr int kWarps = 8;  // of a block, a row each
// Blocks of the backward pass, two for each multiprocessor of an H200. A constant, so that dgain
// and dbias have the same bits everywhere.
constexpr int64_t kBackwardBlocks = 264;

// What both directions know. A block's work on a row that no warp can hold is in operator().
template <class T>
struct Normed {
  bool centred;
  int64_t rows, cols;
  Rows<T> x;
  const float* gain;
  float* statistics;
  bool wide;  // are there 16-byte pieces in all rows?
};

template <class T>
struct Forward : Normed<T> {
  Rows<T> residual, sum, y;
  const float* bias;

  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    T *in = this->x.row(r), *out = y.row(r);
    float* stats = this->statistics + 2 * r;
    if (residual.data) {
      T *a = in, *b = residual.row(r);
      in = sum.row(r);
      team.each(this->cols, [=](int64_t i) { in[i] = T(float(a[i]) + float(b[i])); });
    }
    this->centred ? LayerNorm::forward(team, this->cols, in, this->gain, bias, out, stats)
                  : RmsNorm::forward(team, this->cols, in, this->gain, bias, out, stats);
  }
};

template <class T>
struct Backward : Normed<T> {
  Rows<T> dy, dx;
  bool accumulate;

  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    T *x = this->x.row(r), *d = dy.row(r), *to = dx.row(r);
    float* stats = this->statistics + 2 * r;
    this->centred ? LayerNorm::backward(team, this->cols, x, this->gain, stats, d, to, accumulate)
                  : RmsNorm::backward(team, this->cols, x, this->gain, stats, d, to, accumulate);
  }
};

// Calls f(k, column) for the kVectors pieces of N columns that this lane has of a row.
template <int kVectors, int N, class F>
__device__ void each_piece(int64_t cols, const F& f) {
#pragma unroll 8
  for (int k = 0; k < kVectors; k++) {
    int at = (k * 32 + int(threadIdx.x) % 32) * N;
    if (at < cols) f(k, at);
  }
}

template <class T, int kVectors>
__global__ void __launch_bounds__(32 * kWarps) norm_rows(Forward<T> f) {
  constexpr int N = kNeighbours<T>;
  using Piece = Vector<T, N>;
  int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= f.rows) return;
  Piece x[kVectors] = {};
  const T* from = f.x.row(row);
  each_piece<kVectors, N>(f.cols, [&](int k, int at) { x[k] = Piece::at(from + at); });
  if (f.residual.data) {
    Piece other[kVectors];
    const T* residual = f.residual.row(row);
    T* sum = f.sum.row(row);
    each_piece<kVectors, N>(f.cols, [&](int k, int at) { other[k] = Piece::at(residual + at); });
    each_piece<kVectors, N>(f.cols, [&](int k, int at) {
      float a[N], b[N];
      x[k].unpack(a);
      other[k].unpack(b);
      for (int i = 0; i < N; i++) a[i] += b[i];
      x[k] = Piece::of(a);
      x[k].to(sum + at);
    });
  }
  auto each_value = [&](const auto& work) {
    each_piece<kVectors, N>(f.cols, [&](int k, int) {
      float v[N];
      x[k].unpack(v);
      for (float value : v) work(value);
    });
  };
  float mean = 0, square = 0, n = float(f.cols);
  if (f.centred) {
    each_value([&](float v) { mean += v; });
    mean = over_lanes(mean, Add2{}) / n;
  }
  each_value([&](float v) { square += (v - mean) * (v - mean); });
  float rstd = 1 / sqrtf(over_lanes(square, Add2{}) / n + float(LayerNorm::kEps));
  T* to = f.y.row(row);
  each_piece<kVectors, N>(f.cols, [&](int k, int at) {
    float v[N], gain[N], bias[N];
    x[k].unpack(v);
    for (int i = 0; i < N; i++) gain[i] = 1, bias[i] = 0;
    if (f.gain) Vector<float, N>::at(f.gain + at).unpack(gain);
    if (f.gain && f.bias) Vector<float, N>::at(f.bias + at).unpack(bias);
    for (int i = 0; i < N; i++) v[i] = (v[i] - mean) * rstd * gain[i] + bias[i];
    Piece::of(v).to(to + at);
  });
  if (threadIdx.x % 32 == 0) {
    f.statistics[2 * row] = mean;
    f.statistics[2 * row + 1] = rstd;
  }
}

// partial (2, blocks, cols) <- this block's sums of dy xhat and of dy; may be null.
template <class T, int kVectors>
__global__ void __launch_bounds__(32 * kWarps) norm_backward_rows(Backward<T> f, float* partial) {
  constexpr int N = kNeighbours<T>;
  constexpr bool kEarly = kVectors < 8;  // where registers are left, dx is read beside x and dy
  using Piece = Vector<T, N>;
  int warp = threadIdx.x / 32;
  float dgain[kVectors][N] = {}, dbias[kVectors][N] = {};
  for (int64_t row = int64_t(blockIdx.x) * kWarps + warp; row < f.rows; row += gridDim.x * kWarps) {
    Piece x[kVectors], dy[kVectors], old[kVectors];
    const T *x_row = f.x.row(row), *dy_row = f.dy.row(row);
    T* dx_row = f.dx.row(row);
    each_piece<kVectors, N>(f.cols, [&](int k, int at) {
      x[k] = Piece::at(x_row + at);
      dy[k] = Piece::at(dy_row + at);
    });
    if (kEarly && f.accumulate) {
      each_piece<kVectors, N>(f.cols, [&](int k, int at) { old[k] = Piece::at(dx_row + at); });
    }
    float mean = f.statistics[2 * row], rstd = f.statistics[2 * row + 1];
    float sum_g = 0, sum_gx = 0, n = float(f.cols);
    // v <- xhat and g <- dy gain of a piece
    auto unpack = [&](int k, int at, float* v, float* d, float* g) {
      x[k].unpack(v);
      dy[k].unpack(d);
      for (int i = 0; i < N; i++) g[i] = 1, v[i] = (v[i] - mean) * rstd;
      if (f.gain) Vector<float, N>::at(f.gain + at).unpack(g);
      for (int i = 0; i < N; i++) g[i] *= d[i];
    };
    each_piece<kVectors, N>(f.cols, [&](int k, int at) {
      float v[N], d[N], g[N];
      unpack(k, at, v, d, g);
      for (int i = 0; i < N; i++) {
        sum_g += g[i];
        sum_gx += g[i] * v[i];
        dgain[k][i] += d[i] * v[i];
        dbias[k][i] += d[i];
      }
    });
    if (!f.dx.data) continue;
    float mean_g = f.centred ? over_lanes(sum_g, Add2{}) / n : 0;
    float mean_gx = over_lanes(sum_gx, Add2{}) / n;
    each_piece<kVectors, N>(f.cols, [&](int k, int at) {
      float v[N], d[N], g[N];
      unpack(k, at, v, d, g);
      for (int i = 0; i < N; i++) d[i] = 0;
      if (f.accumulate) (kEarly ? old[k] : Piece::at(dx_row + at)).unpack(d);
      for (int i = 0; i < N; i++) d[i] += rstd * (g[i] - mean_g - v[i] * mean_gx);
      Piece::of(d).to(dx_row + at);
    });
  }
  if (!partial) return;
  // The warps add up one after another: every lane meets its own columns only.
  MURMUR_SHARED(bytes);
  float *gain_sum = reinterpret_cast<float*>(bytes), *bias_sum = gain_sum + f.cols;
  for (int w = 0; w < kWarps; w++) {
    if (warp == w) {
      each_piece<kVectors, N>(f.cols, [&](int k, int at) {
        for (int i = 0; i < N; i++) {
          gain_sum[at + i] = (w ? gain_sum[at + i] : 0) + dgain[k][i];
          bias_sum[at + i] = (w ? bias_sum[at + i] : 0) + dbias[k][i];
        }
      });
    }
    __syncthreads();
  }
  for (int64_t i = threadIdx.x; i < 2 * f.cols; i += blockDim.x) {
    int64_t which = i >= f.cols;
    partial[(which * gridDim.x + blockIdx.x) * f.cols + i - which * f.cols] = gain_sum[i];
  }
}

// The same sums for rows of any form: a thread per column.
template <class T>
__global__ void __launch_bounds__(256) norm_columns(Backward<T> f, int64_t grain, float* partial) {
  int64_t c = int64_t(blockIdx.x) * 256 + threadIdx.x, first = blockIdx.y * grain;
  if (c >= f.cols) return;
  float gain = 0, bias = 0;
  for (int64_t r = first; r < first + grain && r < f.rows; r++) {
    float d = float(f.dy.row(r)[c]);
    gain += d * (float(f.x.row(r)[c]) - f.statistics[2 * r]) * f.statistics[2 * r + 1];
    bias += d;
  }
  partial[blockIdx.y * f.cols + c] = gain;
  partial[(gridDim.y + blockIdx.y) * f.cols + c] = bias;
}

namespace {

// Calls f with how many of a row's vectors a lane takes, as a constant; false for other rows.
template <class T, class F>
bool in_registers(const Normed<T>& x, const F& f) {
  int64_t vectors = x.cols / kNeighbours<T>;
  auto any = [&](auto... n) { return ((vectors <= 32 * n.value && (f(n), true)) || ...); };
  using std::integral_constant;
  return x.wide &&
         any(integral_constant<int, 1>{}, integral_constant<int, 2>{}, integral_constant<int, 3>{},
             integral_constant<int, 4>{}, integral_constant<int, 6>{}, integral_constant<int, 8>{});
}

template <class T, class... R>
Normed<T> normed(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                 const R&... others) {
  constexpr int N = kNeighbours<T>;
  Rows<T> rows = rows_of<T>(x);
  Rows<float> weights = rows_of<float>(gain);
  bool wide = x.cols() % N == 0 && rows.wide(N) && weights.wide(N) && (others.wide(N) && ...);
  return {kind == Norm::layer,      x.rows(), x.cols(), rows, weights.data,
          statistics.data<float>(), wide};
}

}  // namespace

void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
          const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) {
  check_norm(x, residual, gain, sum, y);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> other = rows_of<T>(residual), total = rows_of<T>(sum), out = rows_of<T>(y);
    Rows<float> added = rows_of<float>(bias);
    Forward<T> f{normed<T>(kind, x, gain, statistics, other, total, out, added), other, total, out,
                 added.data};
    bool done = in_registers(f, [&](auto vectors) {
      launch(norm_rows<T, vectors.value>, unsigned(ceil_div(f.rows, kWarps)), 32 * kWarps, 0, f);
    });
    if (!done) launch_rows(f, f.rows, f.cols);
  });
}

void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                   const Tensor& dy, Into dx, Into dgain, Into dbias) {
  check_same(x, dy);
  if (dx.tensor) check_same(x, dx.tensor);
  Tensor partial;  // of dgain and dbias
  auto make_partial = [&](int64_t pieces) -> float* {
    if (!dgain.tensor && !dbias.tensor) return nullptr;
    partial = Tensor({2, pieces, x.cols()}, DType::f32, Device::cuda);
    return partial.data<float>();
  };
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> d = rows_of<T>(dy), to = rows_of<T>(dx.tensor);
    Backward<T> f{normed<T>(kind, x, gain, statistics, d, to), d, to, dx.tensor && dx.accumulate};
    bool done = in_registers(f, [&](auto vectors) {
      int64_t blocks = std::min(kBackwardBlocks, ceil_div(f.rows, kWarps));
      launch(norm_backward_rows<T, vectors.value>, unsigned(blocks), 32 * kWarps,
             size_t(2 * f.cols) * sizeof(float), f, make_partial(blocks));
    });
    if (done) return;
    if (dx.tensor) launch_rows(f, f.rows, f.cols);
    int64_t grain = std::max<int64_t>(64, ceil_div(f.rows, kBackwardBlocks));
    int64_t pieces = ceil_div(f.rows, grain);
    if (float* sums = make_partial(pieces)) {
      launch(norm_columns<T>, dim3{unsigned(ceil_div(f.cols, 256)), unsigned(pieces)}, 256, 0, f,
             grain, sums);
    }
  });
  if (partial) add_pieces(partial, dgain, dbias);
}

}  // namespace murmur::cuda
