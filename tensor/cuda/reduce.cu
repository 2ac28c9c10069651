// tensor/cuda/reduce.cu - sums over rows and over everything, each in two stages: pieces that
// depend on the sizes alone, then the pieces in order.
#include <type_traits>

#include "tensor/checks.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/reductions.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

// partial[k, piece] <- sum of one piece of part k: `length` elements, of rows of `cols`.
template <class T, bool kSquare>
__global__ void __launch_bounds__(256)
    sum_piece(Rows<T> x, int64_t length, int64_t cols, int64_t grain, bool wide, double* partial) {
  constexpr int N = kNeighbours<T>;
  int64_t begin = blockIdx.y * grain, end = begin + grain < length ? begin + grain : length;
  int64_t first = blockIdx.x * length;
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
  s = block_reduce(s, Add2{});
  if (threadIdx.x == 0) partial[blockIdx.x * gridDim.y + blockIdx.y] = s;
}

template <class T>
__global__ void __launch_bounds__(256)
    sum_pieces(const double* partial, int64_t pieces, double factor, T* y) {
  const double* p = partial + blockIdx.x * pieces;
  double s = block_sum<double>(pieces, [=](int64_t i) { return p[i]; });
  if (threadIdx.x == 0) y[blockIdx.x] = T(factor * s);
}

// y[piece] <- sum of `grain` rows of x, 32 N columns to a block. `second` takes what lies behind x.
template <int kWarps, int N, class T>
__global__ void __launch_bounds__(32 * kWarps)
    sum_rows_piece(Rows<T> x, Extent e, int64_t grain, bool wide, Target y, Target second) {
  int64_t column = (int64_t(blockIdx.x) * 32 + threadIdx.x % 32) * N, first = blockIdx.y * grain;
  Target to = blockIdx.z ? second : y;
  if (blockIdx.z) x.data += e.rows * x.stride;
  Place p = place(blockIdx.y, column, e.cols, N, wide);
  float sum[N];
  auto row = [](int64_t i) { return i; };
  if (!sum_by_warps<kWarps>(sum, x, p, first, min(first + grain, e.rows), row)) return;
  to.take(sum, p);
}

void add_pieces(const Tensor& partial, Into first, Into second) {
  auto to = [](const Into& into) { return Target{rows_of<float>(into.tensor), into.accumulate}; };
  Extent e{partial.shape()[1], partial.shape()[2]};
  dim3 grid{unsigned(ceil_div(e.cols, 32)), 1, unsigned(partial.shape()[0])};
  launch(sum_rows_piece<32, 1, float>, grid, 1024, 0, Rows<float>{partial.data<float>(), e.cols}, e,
         e.rows, false, to(first), to(second));
}

namespace {

template <bool kSquare>
void sum_parts(double factor, const Tensor& x, Tensor& y) {
  check_parts(x, y);
  int64_t parts = y.numel();
  int64_t length = x.numel() / parts;
  // At most 1024 pieces in all when there is one part, and no less than 8192 elements in each.
  int64_t grain = std::max<int64_t>(8192, ceil_div(ceil_div(length, 1024), 8) * 8);
  int64_t pieces = ceil_div(length, grain);
  Tensor partial({parts, pieces}, DType::f64, Device::cuda);
  Extent e{x.contiguous() ? parts : x.rows(), x.contiguous() ? length : x.cols()};
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> rows = rows_of<T>(x, e);
    bool flat = x.contiguous() && rows.wide(kNeighbours<T>);
    launch(sum_piece<T, kSquare>, dim3{unsigned(parts), unsigned(pieces)}, 256, 0, rows, length,
           e.cols, grain, flat, partial.data<double>());
  });
  auto finish = [&](auto* out) {
    launch(sum_pieces<std::remove_pointer_t<decltype(out)>>, unsigned(parts), 256, 0,
           partial.data<double>(), pieces, factor, out);
  };
  y.dtype() == DType::f64 ? finish(y.data<double>()) : finish(y.data<float>());
}

}  // namespace

void sum(double factor, const Tensor& x, Tensor& y) { sum_parts<false>(factor, x, y); }

void sum_of_squares(const Tensor& x, Tensor& y) { sum_parts<true>(1, x, y); }

void sum_rows(const Tensor& x, Into y) {
  check_sum_rows(x, y.tensor);
  Extent e{x.rows(), x.cols()};
  int64_t grain = std::max<int64_t>(64, ceil_div(e.rows, 256)), pieces = ceil_div(e.rows, grain);
  Tensor partial({1, pieces, e.cols}, DType::f32, Device::cuda);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Rows<T> from = rows_of<T>(x);
    Target to{rows_of<float>(partial, {pieces, e.cols}), false};
    launch(sum_rows_piece<kSumWarps, N, T>,
           dim3{unsigned(ceil_div(e.cols, 32 * N)), unsigned(pieces)}, 32 * kSumWarps, 0, from, e,
           grain, from.wide(N) && to.y.wide(N), to, Target{});
  });
  add_pieces(partial, y, y);
}

}  // namespace murmur::cuda
