// tensor/cuda/norm.cu - layer norm and RMS norm; the formulas are in tensor/ops/norm.h.
//
// Where a row fits into the registers of a warp, it is read once: forward adds the residual on the
// way, backward makes dx and the row's share of dgain and dbias. Any other row is worked on by a
// block from global memory.
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/team.h"
#include "tensor/ops/norm.h"

namespace murmur {
namespace cuda {

constexpr int kWarps = 8;  // of a block, a row each
// Blocks of the backward pass, two for each multiprocessor of an H200. A constant, so that dgain
// and dbias have the same bits everywhere.
constexpr int64_t kBackwardBlocks = 264;

template <class T>
struct Forward {
  bool centred;
  int64_t rows, cols;
  Rows<T> x, residual;
  const float *gain, *bias;
  Rows<T> sum, y;
  float* statistics;

  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    const T* in = x.row(r);
    if (residual.data) {
      const T* other = residual.row(r);
      T* total = sum.row(r);
      team.each(cols, [=](int64_t i) { total[i] = T(float(in[i]) + float(other[i])); });
      in = total;
    }
    float* stats = statistics + 2 * r;
    if (centred) {
      LayerNorm::forward(team, cols, in, gain, bias, y.row(r), stats);
    } else {
      RmsNorm::forward(team, cols, in, gain, bias, y.row(r), stats);
    }
  }
};

template <class T>
struct Backward {
  bool centred;
  int64_t rows, cols;
  Rows<T> x;
  const float *gain, *statistics;
  Rows<T> dy, dx;
  bool accumulate;

  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    const float* stats = statistics + 2 * r;
    if (centred) {
      LayerNorm::backward(team, cols, x.row(r), gain, stats, dy.row(r), dx.row(r), accumulate);
    } else {
      RmsNorm::backward(team, cols, x.row(r), gain, stats, dy.row(r), dx.row(r), accumulate);
    }
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
  float mean = 0, square = 0, n = float(f.cols);
  if (f.centred) {
    each_piece<kVectors, N>(f.cols, [&](int k, int) {
      float v[N];
      x[k].unpack(v);
      for (int i = 0; i < N; i++) mean += v[i];
    });
    mean = over_lanes(mean, Add2{}) / n;
  }
  each_piece<kVectors, N>(f.cols, [&](int k, int) {
    float v[N];
    x[k].unpack(v);
    for (int i = 0; i < N; i++) square += (v[i] - mean) * (v[i] - mean);
  });
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

}  // namespace cuda

using namespace cuda;

namespace {

// Calls f with how many of a row's vectors a lane takes, as a constant; false for longer rows.
template <class F>
bool with_vectors(int64_t vectors, const F& f) {
  auto any = [&](auto... n) { return ((vectors <= 32 * n.value && (f(n), true)) || ...); };
  using std::integral_constant;
  return any(integral_constant<int, 1>{}, integral_constant<int, 2>{}, integral_constant<int, 3>{},
             integral_constant<int, 4>{}, integral_constant<int, 6>{}, integral_constant<int, 8>{});
}

const float* data_or_null(const Tensor& x) { return x ? x.data<float>() : nullptr; }

}  // namespace

void CudaEngine::norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
                      const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) const {
  Doing doing("norm", {&x, &residual, &gain, &bias, &y});
  check_same("norm", x, y);
  if (residual) check_same("norm", x, residual), check_same("norm", x, sum);
  check(!gain || gain.numel() == x.cols(),
        [&] { return "norm: rows of " + text(x) + ", gain " + text(gain); });
  int64_t rows = x.rows(), cols = x.cols();
  dispatch_single(x.dtype(), "norm", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Forward<T> f{kind == Norm::layer,
                 rows,
                 cols,
                 rows_of<T>(x),
                 rows_of<T>(residual),
                 data_or_null(gain),
                 data_or_null(bias),
                 rows_of<T>(sum),
                 rows_of<T>(y),
                 statistics.data<float>()};
    auto in_registers = [&](auto vectors) {
      launch(norm_rows<T, vectors.value>, unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, f);
    };
    bool fits = cols % N == 0 && wide(N, {rows, cols}, {&x, &residual, &sum, &y}) &&
                wide(N, {1, cols}, {&gain, &bias});
    if (!fits || !with_vectors(cols / N, in_registers)) launch_rows(f, rows, cols);
  });
}

void CudaEngine::norm_backward(Norm kind, const Tensor& x, const Tensor& gain,
                               const Tensor& statistics, const Tensor& dy, Into dx, Into dgain,
                               Into dbias) const {
  Doing doing("norm backward", {&x, &gain, &dy, &dx.tensor, &dgain.tensor, &dbias.tensor});
  check_same("norm backward", x, dy);
  if (dx.tensor) check_same("norm backward", x, dx.tensor);
  int64_t rows = x.rows(), cols = x.cols();
  bool sums = dgain.tensor || dbias.tensor;
  dispatch_single(x.dtype(), "norm", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Backward<T> f{kind == Norm::layer,
                  rows,
                  cols,
                  rows_of<T>(x),
                  data_or_null(gain),
                  statistics.data<float>(),
                  rows_of<T>(dy),
                  rows_of<T>(dx.tensor),
                  dx.tensor && dx.accumulate};
    Tensor partial;
    auto in_registers = [&](auto vectors) {
      int64_t blocks = std::min(kBackwardBlocks, ceil_div(rows, kWarps));
      if (sums) partial = Tensor({2, blocks, cols}, DType::f32, Device::cuda);
      launch(norm_backward_rows<T, vectors.value>, unsigned(blocks), 32 * kWarps,
             size_t(2 * cols * int64_t(sizeof(float))), f, sums ? partial.data<float>() : nullptr);
    };
    bool fits = cols % N == 0 && wide(N, {rows, cols}, {&x, &dy, &dx.tensor}) &&
                wide(N, {1, cols}, {&gain});
    if (!fits || !with_vectors(cols / N, in_registers)) {
      if (dx.tensor) launch_rows(f, rows, cols);
      int64_t grain = std::max<int64_t>(64, ceil_div(rows, kBackwardBlocks));
      int64_t pieces = ceil_div(rows, grain);
      if (sums) {
        partial = Tensor({2, pieces, cols}, DType::f32, Device::cuda);
        launch(norm_columns<T>, dim3{unsigned(ceil_div(cols, 256)), unsigned(pieces)}, 256, 0, f,
               grain, partial.data<float>());
      }
    }
    if (sums) add_pieces(partial, dgain, dbias);
  });
}

}  // namespace murmur
