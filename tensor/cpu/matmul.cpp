// tensor/cpu/matmul.cpp - matrix products: oneDNN for fp32, AMX or oneDNN for bf16, plain loops for
// fp64.
//
// A product is cut into blocks of the result by its sizes alone, and each block is one
// single-threaded call over the whole inner dimension: a library would split a sum by the number of
// threads that it may use, and add in another order in a block of another size. So 1 and 64 threads
// give the same bits, and a matrix gives the same alone and in any bank.
#include <oneapi/dnnl/dnnl.h>

#include <type_traits>
#include <vector>

#include "tensor/cpu/bf16_matmul.h"
#include "tensor/cpu/cpu_engine.h"
#include "tensor/cpu/factor.h"
#include "tensor/cpu/map_row.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/small_matmul.h"  // transpose_block
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

// What one task computes: a block of one matrix of the result.
struct Block {
  int64_t row, col, height, width;
  bool on_diagonal = false;  // of a symmetric result: entries above the diagonal are not needed
};

// Blocks of at most rows x cols. Of a symmetric result those above the diagonal are left out.
std::vector<Block> cut(int64_t m, int64_t n, int64_t rows, int64_t cols, bool symmetric) {
  std::vector<Block> blocks;
  for (int64_t row = 0; row < m; row += rows) {
    for (int64_t col = 0; col < (symmetric ? row + 1 : n); col += cols)
      blocks.push_back(
          {row, col, std::min(rows, m - row), std::min(cols, n - col), symmetric && row == col});
  }
  return blocks;
}

// A side in `count` pieces of whole vectors.
int64_t piece_of(int64_t side, int64_t count) {
  return ((side + count - 1) / count + 15) / 16 * 16;
}

constexpr double kBlockFlops = 10e6;  // worth a task of its own

// Few and large: each block packs its operands anew, so halving its sides doubles that work. About
// 384 x 384 a block, but at least four where there is work for them (docs/results.md has the
// table). How many matrices there are is not asked: blocks would depend on it.
std::vector<Block> blocks_for(int64_t m, int64_t n, int64_t k, bool symmetric) {
  constexpr double kArea = 384.0 * 384.0;
  double by_area = double(m) * double(n) / kArea,
         by_work = 2.0 * double(m) * double(n) * double(k) / kBlockFlops;
  double wanted = std::clamp(std::max(by_area, std::min(4.0, by_work)), 1.0, 64.0);
  int64_t down = 1, across = 1;
  while (double(down * across) < wanted) {
    bool halve_rows = m / down >= n / across;
    if ((halve_rows ? m / down : n / across) < 96) break;
    (halve_rows ? down : across) *= 2;
  }
  if (symmetric) down = across = std::max(down, across);
  return cut(m, n, piece_of(m, down), piece_of(n, across), symmetric);
}

// amx_product packs the right side in every task. That pays where half of the result is spared, and
// where it has many rows: a thousand, or as many as the inner dimension is long.
Bf16Multiply bf16_product_for(int64_t m, int64_t k, bool symmetric) {
  if (forced_bf16_product()) return forced_bf16_product();
  bool pays = symmetric || m >= std::min<int64_t>(k, 1024);
  if (amx_available() && pays) return amx_product;
  return onednn_has_bf16() ? onednn_product : fp32_product;
}

// For amx_product, which keeps the right side's block in the second-level cache and sees the left
// side once: all rows by 384 columns, or by 768 where the right side is small. With a long inner
// dimension the sums must stay in that cache too: no more than 768 rows then.
std::vector<Block> amx_blocks_for(int64_t m, int64_t n, int64_t k, bool symmetric) {
  int64_t widest = k <= 768 && n <= 768 ? 768 : 384, tallest = k <= 1024 ? m : 768;
  int64_t down = (m + tallest - 1) / tallest, across = (n + widest - 1) / widest;
  auto worth_halving = [&] {
    return down * across < 4 &&
           2.0 * double(m) * double(n) * double(k) > kBlockFlops * double(2 * down * across);
  };
  while (worth_halving()) (m / down > n / across ? down : across) *= 2;
  if (!symmetric) return cut(m, n, piece_of(m, down), piece_of(n, across), false);
  std::vector<Block> columns;
  int64_t width = piece_of(n, across);
  for (int64_t at = 0; at < n; at += width)
    columns.push_back({at, at, m - at, std::min(width, n - at), true});
  return columns;
}

template <class Out>
Out* place(const Tensor& x, int64_t row, int64_t col) {
  return x.data<Out>() + row * x.row_stride() + col;
}

// The bias of a block's columns; empty where there is none.
template <class C>
std::vector<C> bias_of(const MatmulForm& form, const Block& block) {
  std::vector<C> bias;
  if (!form.bias) return bias;
  dispatch(form.bias.dtype(), "matmul bias", [&](auto type) {
    const auto* from = form.bias.data<decltype(type)>() + block.col;
    for (int64_t j = 0; j < block.width; j++) bias.push_back(C(from[j]));
  });
  return bias;
}

// A block of c <- alpha a b (+ c) + beta plus + bias, added up in place. `top`: the first row of
// c's matrix.
template <class T>
void compute_block(const MatmulForm& form, double alpha, int64_t k, Operand<T> a, Operand<T> b,
                   Into c, int64_t top, const Block& block) {
  T* out = place<T>(c.tensor, top + block.row, block.col);
  int64_t stride = c.tensor.row_stride();
  bool add = c.accumulate || form.plus || k == 0;
  for (int64_t i = 0; i < block.height && add; i++) {
    T* line = out + i * stride;
    if (!c.accumulate) std::fill(line, line + block.width, T(0));
    if (!form.plus) continue;
    const T *plus = place<T>(form.plus, top + block.row + i, block.col), beta = T(form.beta);
    for (int64_t j = 0; j < block.width; j++) line[j] += beta * plus[j];
  }
  if (k > 0) multiply(block.height, block.width, k, alpha, a, b, add ? 1.f : 0.f, out, stride);
  std::vector<T> bias = bias_of<T>(form, block);
  for (int64_t i = 0; i < block.height && form.bias; i++) {
    for (int64_t j = 0; j < block.width; j++) out[i * stride + j] += bias[size_t(j)];
  }
}

// One row of the same for bf16: added in fp32 and rounded once. Pointers that are null add nothing.
template <class Out>
void round_row(int64_t n, float alpha, float* sums, bool accumulate, float beta, const Out* plus,
               const float* bias, Out* out) {
  auto each = [n](auto f) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) f(j);
  };
  float rest = alpha;  // what the sums are still to be multiplied by
  if (accumulate) {
    each([=](int64_t j) { sums[j] = alpha * sums[j] + float(out[j]); });
    rest = 1;
  }
  if (bias) {
    each([=](int64_t j) { sums[j] = rest * sums[j] + bias[j]; });
    rest = 1;
  }
  if (plus)
    each([=](int64_t j) { out[j] = Out(rest * sums[j] + beta * float(plus[j])); });
  else
    each([=](int64_t j) { out[j] = Out(rest * sums[j]); });
}

template <class Out>
void compute_block(Bf16Multiply product, const MatmulForm& form, double alpha, int64_t k,
                   Operand<bf16> a, Operand<bf16> b, Into c, int64_t top, const Block& block) {
  std::vector<float> bias = bias_of<float>(form, block);
  auto finish = [&](int64_t row, int64_t height, float* sums, int64_t stride) {
    for (int64_t i = row; i < row + height; i++, sums += stride) {
      int64_t wanted = block.on_diagonal ? std::min(block.width, i / 32 * 32 + 32) : block.width;
      auto line = [&](const Tensor& x) { return place<Out>(x, top + block.row + i, block.col); };
      round_row(wanted, float(alpha), sums, c.accumulate, float(form.beta),
                form.plus ? line(form.plus) : nullptr, form.bias ? bias.data() : nullptr,
                line(c.tensor));
    }
  };
  if (k == 0) {
    Tensor zeros = Tensor::zeros({block.height, block.width});
    return finish(0, block.height, zeros.data<float>(), block.width);
  }
  product({block.height,
           block.width,
           k,
           {a.data, a.stride, !a.transposed},
           {b.data, b.stride, b.transposed},
           block.on_diagonal,
           finish});
}

// Activation, row by row, on a block that is still in the cache.
template <class Out>
void activate(const MatmulForm& form, const Tensor& c, int64_t top, const Block& block) {
  for (int64_t i = top + block.row; i < top + block.row + block.height; i++) {
    auto line = [&](const Tensor& x) { return place<Out>(x, i, block.col); };
    if (form.activated) map_row(form.op, block.width, line(c), line(form.activated));
    if (form.slope_at) slope_row(form.op, block.width, line(form.slope_at), line(c));
  }
}

// Writes a block of a symmetric matrix, below the diagonal or on it, to its mirror image.
template <class T>
void mirror(const Tensor& c, int64_t top, const Block& block) {
  constexpr int64_t R = kTurnRows<T>, L = kLanes<Compute<T>>;
  int64_t last_row = block.row + block.height, last_col = block.col + block.width,
          stride = c.row_stride();
  for (int64_t row = block.row; row < last_row; row += R) {
    for (int64_t col = block.col; col < std::min(last_col, row + R); col += L) {
      const T* from = place<T>(c, top + row, col);
      T* to = place<T>(c, top + col, row);
      if (row + R > last_row || col + L > last_col) {  // the margin
        for (int64_t i = row; i < std::min(last_row, row + R); i++) {
          for (int64_t j = col; j < std::min({last_col, col + L, i}); j++)
            to[(j - col) * stride + i - row] = from[(i - row) * stride + j - col];
        }
      } else if (col + L > row) {  // the diagonal: the image of what lies below it
        T turned[L * R];
        transpose_block(from, stride, turned, R);
        for (int64_t j = 0; j < L; j++) {
          for (int64_t i = 0; i < R; i++)
            to[j * stride + i] = row + i > col + j ? turned[j * R + i] : to[j * stride + i];
        }
      } else {
        transpose_block(from, stride, to, stride);
      }
    }
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
  bool symmetric = form.symmetric && m == n && !form.bias && !form.activated && !form.slope_at;
  constexpr bool kRounded = std::is_same_v<In, bf16>;
  Bf16Multiply product = bf16_product_for(m, k, symmetric);
  std::vector<Block> blocks = kRounded && product == amx_product
                                  ? amx_blocks_for(m, n, k, symmetric)
                                  : blocks_for(m, n, k, symmetric);
  int64_t per_matrix = int64_t(blocks.size());
  parallel_tasks(batch * per_matrix, [&](int64_t task) {
    OneThread of_library;
    int64_t matrix = task / per_matrix, top = matrix * m;
    const Block& block = blocks[size_t(task % per_matrix)];
    Operand<In> left{a.data<In>() + matrix * a_rows * a.row_stride(), a.row_stride(),
                     form.transpose_a};
    Operand<In> right{b.data<In>() + matrix * b_rows * b.row_stride(), b.row_stride(),
                      form.transpose_b};
    left.data = left.at(block.row, 0);
    right.data = right.at(0, block.col);
    double alpha = value_of(form.alpha, own_alphas ? matrix : 0);
    if constexpr (kRounded)
      compute_block<Out>(product, form, alpha, k, left, right, c, top, block);
    else
      compute_block(form, alpha, k, left, right, c, top, block);
    activate<Out>(form, c.tensor, top, block);
    if (symmetric) mirror<Out>(c.tensor, top, block);
  });
}

}  // namespace

bool CpuEngine::fast_bf16() const { return amx_available(); }

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
