// tensor/cuda/reduce.cu - sums over rows and over everything, each in two stages: pieces that
// depend on the sizes alone, then the pieces in order.
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/team.h"
#include "tensor/cuda/vector.h"

namespace murmur {
namespace cuda {

// partial[k, piece] <- sum of one piece of part k: `length` elements, of rows of `cols`.
template <class T, bool kSquare>
__global__ void __launch_bounds__(256)
    sum_piece(Rows<T> x, int64_t length, int64_t cols, int64_t grain, bool wide, double* partial) {
  constexpr int N = kNeighbours<T>;
  int64_t begin = blockIdx.x * grain, end = begin + grain < length ? begin + grain : length;
  int64_t first = blockIdx.y * length;
  double s = 0;
#pragma unroll 2
  for (int64_t i = begin + threadIdx.x * N; i < end; i += 256 * N) {
    float v[N];
    if (wide && i + N <= end) {
      Vector<T, N>::at(x.data + first + i).unpack(v);
    } else {
      for (int j = 0; j < N; j++) {
        int64_t at = first + i + j;
        v[j] = i + j < end ? float(x.row(at / cols)[at % cols]) : 0.f;
      }
    }
    for (int j = 0; j < N; j++) s += kSquare ? double(v[j]) * double(v[j]) : double(v[j]);
  }
  s = BlockTeam::over_block(s, Add2{});
  if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = s;
}

template <class T>
__global__ void __launch_bounds__(256)
    sum_pieces(const double* partial, int64_t pieces, double factor, T* y) {
  const double* p = partial + blockIdx.x * pieces;
  double s = BlockTeam::sum<double>(pieces, [=](int64_t i) { return p[i]; });
  if (threadIdx.x == 0) y[blockIdx.x] = T(factor * s);
}

// A piece of rows by 32 N columns: each of 8 warps takes every eighth row, its lanes the columns.
template <class T>
__global__ void __launch_bounds__(256) sum_rows_piece(Rows<T> x, int64_t rows, int64_t cols,
                                                      int64_t grain, bool wide, float* partial) {
  constexpr int N = kNeighbours<T>, kWidth = 32 * N;
  __shared__ float of_warp[8][kWidth];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t left = int64_t(blockIdx.x) * kWidth, first = blockIdx.y * grain;
  int64_t last = first + grain < rows ? first + grain : rows;
  float s[N] = {};
  if (left + lane * N < cols) {
    Place p = place(0, left + lane * N, cols, N, wide);
#pragma unroll 4
    for (p.row = first + warp; p.row < last; p.row += 8) {
      float v[N];
      x.load(v, p);
      for (int i = 0; i < N; i++) s[i] += v[i];
    }
  }
  for (int i = 0; i < N; i++) of_warp[warp][lane * N + i] = s[i];
  __syncthreads();
  int64_t c = left + threadIdx.x;
  if (threadIdx.x >= kWidth || c >= cols) return;
  float all = 0;
  for (int w = 0; w < 8; w++) all += of_warp[w][threadIdx.x];
  partial[blockIdx.y * cols + c] = all;
}

struct Output {
  float* y;
  bool accumulate;
};

// 32 columns by 32 warps; warp w adds pieces w, w + 32, ...
__global__ void __launch_bounds__(1024)
    add_pieces_kernel(const float* partial, int64_t pieces, int64_t cols, Output first,
                      Output second) {
  __shared__ float of_warp[32][32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t c = int64_t(blockIdx.x) * 32 + lane;
  const float* p = partial + blockIdx.y * pieces * cols + c;
  float* y = blockIdx.y ? second.y : first.y;
  bool accumulate = blockIdx.y ? second.accumulate : first.accumulate;
  float s = 0;
  if (!y) return;
  if (c < cols) {
#pragma unroll 4
    for (int64_t i = warp; i < pieces; i += 32) s += p[i * cols];
  }
  of_warp[warp][lane] = s;
  __syncthreads();
  if (warp > 0 || c >= cols) return;
  s = accumulate ? y[c] : 0.f;
  for (int w = 0; w < 32; w++) s += of_warp[w][lane];
  y[c] = s;
}

void add_pieces(const Tensor& partial, Into first, Into second) {
  auto output = [](const Into& into) {
    return Output{into.tensor ? into.tensor.data<float>() : nullptr, into.accumulate};
  };
  int64_t cols = partial.shape()[2];
  launch(add_pieces_kernel, dim3{unsigned(ceil_div(cols, 32)), unsigned(partial.shape()[0])}, 1024,
         0, partial.data<float>(), partial.shape()[1], cols, output(first), output(second));
}

}  // namespace cuda

using namespace cuda;

namespace {

template <bool kSquare>
void sum_parts(const char* op, double factor, const Tensor& x, Tensor& y) {
  int64_t parts = y.numel();
  check(parts > 0 && (parts == 1 || x.shape()[0] % parts == 0) && y.contiguous(),
        [&] { return std::string(op) + ": " + text(x) + " into " + text(y); });
  int64_t length = x.numel() / parts;
  // At most 1024 pieces in all when there is one part, and no less than 8192 elements in each.
  int64_t grain = std::max<int64_t>(8192, ceil_div(ceil_div(length, 1024), 8) * 8);
  int64_t pieces = ceil_div(length, grain);
  Tensor partial({parts, pieces}, DType::f64, Device::cuda);
  Extent e{x.contiguous() ? parts : x.rows(), x.contiguous() ? length : x.cols()};
  dispatch_single(x.dtype(), op, [&](auto type) {
    using T = decltype(type);
    bool flat = x.contiguous() && wide(kNeighbours<T>, e, {&x});
    launch(sum_piece<T, kSquare>, dim3{unsigned(pieces), unsigned(parts)}, 256, 0, rows_of<T>(x, e),
           length, e.cols, grain, flat, partial.data<double>());
  });
  auto finish = [&](auto* out) {
    launch(sum_pieces<std::remove_pointer_t<decltype(out)>>, unsigned(parts), 256, 0,
           partial.data<double>(), pieces, factor, out);
  };
  y.dtype() == DType::f64 ? finish(y.data<double>()) : finish(y.data<float>());
}

}  // namespace

void CudaEngine::sum(double factor, const Tensor& x, Tensor& y) const {
  Doing doing("sum", {&x, &y});
  sum_parts<false>("sum", factor, x, y);
}

void CudaEngine::sum_of_squares(const Tensor& x, Tensor& y) const {
  Doing doing("sum_of_squares", {&x, &y});
  sum_parts<true>("sum_of_squares", 1, x, y);
}

void CudaEngine::sum_rows(const Tensor& x, Into y) const {
  Doing doing("sum_rows", {&x, &y.tensor});
  int64_t rows = x.rows(), cols = x.cols();
  check(y.tensor.numel() == cols && y.tensor.dtype() == compute_type(x.dtype()),
        [&] { return "sum_rows: " + text(x) + " into " + text(y.tensor); });
  int64_t grain = std::max<int64_t>(64, ceil_div(rows, 256)), pieces = ceil_div(rows, grain);
  Tensor partial({1, pieces, cols}, DType::f32, Device::cuda);
  dispatch_single(x.dtype(), "sum_rows", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    launch(sum_rows_piece<T>, dim3{unsigned(ceil_div(cols, 32 * N)), unsigned(pieces)}, 256, 0,
           rows_of<T>(x), rows, cols, grain, wide(N, {rows, cols}, {&x}), partial.data<float>());
  });
  add_pieces(partial, y, y);
}

}  // namespace murmur
