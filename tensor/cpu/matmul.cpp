// tensor/cpu/matmul.cpp - matrix products: oneDNN for fp32 and bf16, plain loops for fp64.
//
// A product is cut into tiles of the result by its sizes alone, and each tile is one
// single-threaded library call over the whole inner dimension. The library never sees the number of
// threads, so it cannot split a sum by it, and 1 and 64 threads give the same bits.
#include <oneapi/dnnl/dnnl.h>

#include "tensor/cpu/bf16_matmul.h"
#include "tensor/cpu/cpu_engine.h"
#include "tensor/cpu/factor.h"
#include "tensor/cpu/map_row.h"
#include "tensor/cpu/parallel.h"
#include "tensor/dispatch.h"

namespace murmur {
namespace {

// One operand as the library wants it: element (i, j) of op(x) at data[i * row + j * column].
template <class T>
struct Operand {
  const T* data;
  int64_t stride;
  bool transposed;
  const T* at(int64_t row, int64_t column) const {
    return data + (transposed ? column * stride + row : row * stride + column);
  }
};

// In pieces of the inner dimension: a transposed left side with long rows is packed faster that way
// (5 to 10% at 1536 x 384 x 3072).
void multiply(int64_t m, int64_t n, int64_t k, double alpha, Operand<float> a, Operand<float> b,
              float beta, float* c, int64_t c_stride) {
  const int64_t piece = a.transposed ? 512 : k;
  for (int64_t begin = 0; begin < k; begin += piece) {
    dnnl_status_t status =
        dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n,
                   std::min(piece, k - begin), float(alpha), a.at(0, begin), a.stride,
                   b.at(begin, 0), b.stride, begin ? 1.f : beta, c, c_stride);
    check(status == dnnl_success,
          [&] { return "matmul: oneDNN status " + std::to_string(int(status)); });
  }
}

void multiply(int64_t m, int64_t n, int64_t k, double alpha, Operand<double> a, Operand<double> b,
              float beta, double* c, int64_t c_stride) {
  for (int64_t i = 0; i < m; i++) {
    double* row = c + i * c_stride;
    for (int64_t j = 0; j < n; j++) row[j] = beta == 0 ? 0 : row[j];
    for (int64_t p = 0; p < k; p++) {
      double x = alpha * *a.at(i, p);
      for (int64_t j = 0; j < n; j++) row[j] += x * *b.at(p, j);
    }
  }
}

template <class Out>
void multiply(int64_t m, int64_t n, int64_t k, double alpha, Operand<bf16> a, Operand<bf16> b,
              float beta, Out* c, int64_t c_stride) {
  bf16_matmul({m, n, k, a.data, a.stride, a.transposed, b.data, b.stride, b.transposed, c, c_stride,
               dtype_of<Out>(), float(alpha), beta != 0});
}

// Tiles of the result, by the sizes alone.
struct Tiles {
  int64_t rows, cols;    // of one tile
  int64_t down, across;  // how many
};

// Few and large: each tile packs its operands anew, so halving its sides doubles that work. About
// 384 x 384 a tile, but at least four where there is work for them (docs/results.md has the table).
Tiles tiles_for(int64_t m, int64_t n, int64_t k) {
  constexpr double kArea = 384.0 * 384.0, kFlops = 10e6;
  double by_area = double(m) * double(n) / kArea,
         by_work = 2.0 * double(m) * double(n) * double(k) / kFlops;
  double wanted = std::clamp(std::max(by_area, std::min(4.0, by_work)), 1.0, 64.0);
  int64_t down = 1, across = 1;
  while (double(down * across) < wanted) {
    bool halve_rows = m / down >= n / across;
    if ((halve_rows ? m / down : n / across) < 96) break;
    (halve_rows ? down : across) *= 2;
  }
  auto piece = [](int64_t size, int64_t count) {
    return ((size + count - 1) / count + 15) / 16 * 16;
  };
  Tiles t{piece(m, down), piece(n, across), 0, 0};
  t.down = (m + t.rows - 1) / t.rows;
  t.across = (n + t.cols - 1) / t.cols;
  return t;
}

// Bias and activation, row by row, on a tile that is still in the cache.
template <class Out>
void finish_tile(const MatmulForm& form, const Tensor& c, int64_t row, int64_t height, int64_t col,
                 int64_t width) {
  using C = Compute<Out>;
  if (!form.bias && !form.activated && !form.slope_at) return;
  bool rounded = form.bias && form.bias.dtype() == DType::bf16;
  const C* bias = form.bias && !rounded ? form.bias.data<C>() + col : nullptr;
  const bf16* rounded_bias = rounded ? form.bias.data<bf16>() + col : nullptr;
  auto place = [&](const Tensor& x, int64_t i) { return x.data<Out>() + i * x.row_stride() + col; };
  for (int64_t i = row; i < row + height; i++) {
    Out* line = place(c, i);
    if (bias) {
#pragma omp simd
      for (int64_t j = 0; j < width; j++) line[j] = Out(C(line[j]) + bias[j]);
    }
    if (rounded_bias) {
#pragma omp simd
      for (int64_t j = 0; j < width; j++) line[j] = Out(C(line[j]) + C(rounded_bias[j]));
    }
    if (form.activated) map_row(form.op, width, line, place(form.activated, i));
    if (form.slope_at) slope_row(form.op, width, place(form.slope_at, i), line);
  }
}

// c (+)= beta plus, on a tile.
template <class Out>
void begin_with(const MatmulForm& form, Into c, int64_t row, int64_t height, int64_t col,
                int64_t width) {
  using C = Compute<Out>;
  C beta = C(form.beta);
  for (int64_t i = row; i < row + height; i++) {
    const Out* in = form.plus.data<Out>() + i * form.plus.row_stride() + col;
    Out* out = c.tensor.data<Out>() + i * c.tensor.row_stride() + col;
    for (int64_t j = 0; j < width; j++)
      out[j] = Out((c.accumulate ? C(out[j]) : C(0)) + beta * C(in[j]));
  }
}

template <class In, class Out>
void matmul_typed(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) {
  bool batched = a.shape().rank() == 3 && b.shape().rank() == 3;
  int64_t batch = batched ? a.shape()[0] : 1;
  bool own_alphas = form.alpha.by && form.alpha.by.numel() == batch;
  int64_t a_rows = a.rows() / batch, b_rows = b.rows() / batch, c_rows = c.tensor.rows() / batch;
  int64_t m = form.transpose_a ? a.cols() : a_rows, k = form.transpose_a ? a_rows : a.cols();
  int64_t n = form.transpose_b ? b_rows : b.cols(), inner = form.transpose_b ? b.cols() : b_rows;
  check(k == inner && c_rows == m && c.tensor.cols() == n && (!batched || b.shape()[0] == batch),
        [&] {
          return "matmul: " + text(a) + (form.transpose_a ? "^T" : "") + " x " + text(b) +
                 (form.transpose_b ? "^T" : "") + " into " + text(c.tensor) +
                 ": sizes do not fit; transpose a side?";
        });
  check(!form.bias || form.bias.numel() == n, [&] {
    return "matmul: bias " + text(form.bias) + " for " + std::to_string(n) + " columns";
  });
  Tiles tiles = tiles_for(m, n, k);
  int64_t per_matrix = tiles.down * tiles.across;
  parallel_tasks(batch * per_matrix, [&](int64_t task) {
    int64_t matrix = task / per_matrix, row = task % per_matrix / tiles.across * tiles.rows;
    int64_t col = task % per_matrix % tiles.across * tiles.cols;
    int64_t height = std::min(tiles.rows, m - row), width = std::min(tiles.cols, n - col);
    Operand<In> left{a.data<In>() + matrix * a_rows * a.row_stride(), a.row_stride(),
                     form.transpose_a};
    Operand<In> right{b.data<In>() + matrix * b_rows * b.row_stride(), b.row_stride(),
                      form.transpose_b};
    left.data = left.at(row, 0);
    right.data = right.at(0, col);
    int64_t stride = c.tensor.row_stride();
    Out* out = c.tensor.data<Out>() + (matrix * m + row) * stride + col;
    bool add = c.accumulate || form.plus;
    if (form.plus) begin_with<Out>(form, c, matrix * m + row, height, col, width);
    if (k == 0) {
      for (int64_t i = 0; i < height && !add; i++)
        std::fill(out + i * stride, out + i * stride + width, Out{});
    } else {
      multiply(height, width, k, value_of(form.alpha, own_alphas ? matrix : 0), left, right,
               add ? 1.f : 0.f, out, stride);
    }
    finish_tile<Out>(form, c.tensor, matrix * m + row, height, col, width);
  });
}

}  // namespace

void CpuEngine::matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) const {
  check(a.dtype() == b.dtype(),
        [&] { return "matmul: " + text(a) + " x " + text(b) + ": element types differ"; });
  DType in = a.dtype(), out = c.tensor.dtype();
  if (Tensor sums = form.sums) sum_rows(a, {sums, form.add_to_sums});
  if (in == DType::f32 && out == DType::f32) return matmul_typed<float, float>(a, b, c, form);
  if (in == DType::bf16 && out == DType::bf16) return matmul_typed<bf16, bf16>(a, b, c, form);
  if (in == DType::bf16 && out == DType::f32) return matmul_typed<bf16, float>(a, b, c, form);
  if (in == DType::f64 && out == DType::f64) return matmul_typed<double, double>(a, b, c, form);
  throw Error("matmul: " + text(a) + " x " + text(b) + " into " + text(c.tensor) +
              ": no such combination of types");
}

}  // namespace murmur
