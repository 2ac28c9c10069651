// tensor/cpu/matmul.cpp - matrix products: cut into blocks for threads, finished row by row.
//
// A product is cut into blocks of the result, each for one thread. Blocks are for speed alone:
// every sum runs along the whole inner dimension in one order, whatever block it is in. So 1 and 64
// threads give the same bits, a matrix gives the same alone and in any bank, and so does half of a
// symmetric result.
#include <type_traits>
#include <vector>

#include "tensor/cpu/parallel.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/transpose.h"
#include "tensor/dispatch.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

// What one task computes: a block of one matrix of the result. Of a symmetric result: columns from
// the diagonal down.
struct Block {
  int64_t row, col, height, width;
};

constexpr double kBlockFlops = 10e6;  // worth a task of its own

// The right side's part of a block must fit into the second-level cache, and so must sums of a long
// inner dimension. At least four blocks where there is work for them. Strips of a block have
// `rows`.
std::vector<Block> blocks_for(int64_t batch, int64_t m, int64_t n, int64_t k, bool symmetric,
                              int64_t rows) {
  constexpr int64_t kTallest = 1024, kPanelWords = 768 * 256;
  int64_t widest = kPanelWords / std::clamp<int64_t>(k, 192, 768);
  int64_t down = symmetric ? 1 : (m + kTallest - 1) / kTallest, across = (n + widest - 1) / widest;
  auto worth_halving = [&] {
    return batch * down * across < 4 &&
           2.0 * double(m) * double(n) * double(k) > kBlockFlops * double(2 * down * across);
  };
  while (worth_halving()) (m / down > n / across && !symmetric ? down : across) *= 2;
  auto side = [](int64_t whole, int64_t pieces, int64_t unit) {
    return ((whole + pieces - 1) / pieces + unit - 1) / unit * unit;
  };
  int64_t height = side(m, down, rows), width = side(n, across, 32);
  std::vector<Block> blocks;
  for (int64_t col = 0; col < n; col += width) {
    for (int64_t row = symmetric ? col : 0; row < m; row += symmetric ? m : height)
      blocks.push_back(
          {row, col, symmetric ? m - row : std::min(height, m - row), std::min(width, n - col)});
  }
  return blocks;
}

// A factor's part k, as the number it is.
double value_of(const Factor& factor, int64_t k) {
  if (!factor.by) return factor.value;
  if (factor.by.dtype() == DType::f64) return factor.value * factor.by.data<double>()[k];
  return factor.value * double(factor.by.data<float>()[k]);
}

template <class Out>
Out* place(const Tensor& x, int64_t row, int64_t col) {
  return x ? x.data<Out>() + row * x.row_stride() + col : nullptr;
}

// The bias of a block's columns; empty where there is none.
template <class C>
std::vector<C> bias_of(const MatmulForm& form, const Block& block) {
  std::vector<C> bias;
  if (!form.bias) return bias;
  dispatch(form.bias.dtype(), [&](auto type) {
    const auto* from = form.bias.data<decltype(type)>() + block.col;
    for (int64_t j = 0; j < block.width; j++) bias.push_back(C(from[j]));
  });
  return bias;
}

// out <- alpha sums (+ out) + bias + beta plus, rounded once. Pointers that are null add nothing.
// sums may be out.
template <class C, class Out>
void finish_row(int64_t n, C alpha, C* sums, bool accumulate, const C* bias, C beta,
                const Out* plus, Out* out) {
  auto each = [n](auto f) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) f(j);
  };
  C rest = alpha;  // what the sums are still to be multiplied by
  if (accumulate) {
    each([=](int64_t j) { sums[j] = alpha * sums[j] + C(out[j]); });
    rest = 1;
  }
  if (bias) {
    each([=](int64_t j) { sums[j] = rest * sums[j] + bias[j]; });
    rest = 1;
  }
  if (plus)
    each([=](int64_t j) { out[j] = Out(rest * sums[j] + beta * C(plus[j])); });
  else if (rest != 1 || static_cast<void*>(sums) != out)
    each([=](int64_t j) { out[j] = Out(rest * sums[j]); });
}

// A block of c <- alpha a b (+ c) + bias + beta plus and what follows, row by row while it is in
// the first-level cache. `top`: the first row of c's matrix.
template <class In, class Out>
void compute_block(const MatmulForm& form, double alpha, int64_t k, Operand<In> a, Operand<In> b,
                   Into c, bool symmetric, int64_t top, const Block& block) {
  using C = Compute<In>;
  // Sums of fp32 are added up where they belong, unless c must not be multiplied with them.
  const bool in_place = std::is_same_v<Out, float> && (!c.accumulate || alpha == 1) && k > 0;
  std::vector<C> bias = bias_of<C>(form, block);
  const UnaryFunction* f = form.op.function;
  const double constant = form.op.constant;
  auto finish = [&](int64_t row, int64_t height, C* sums, int64_t stride) {
    for (int64_t i = row; i < row + height; i++, sums += stride) {
      int64_t n = symmetric ? std::min(block.width, i + 1) : block.width;
      auto line = [&](const Tensor& x) { return place<Out>(x, top + block.row + i, block.col); };
      Out* out = line(c.tensor);
      finish_row(n, C(alpha), sums, c.accumulate && !in_place, form.bias ? bias.data() : nullptr,
                 C(form.beta), line(form.plus), out);
      if (form.activated) f->value_row(dtype_of<Out>(), constant, n, out, line(form.activated));
      if (form.slope_at) f->slope_row(dtype_of<Out>(), constant, n, line(form.slope_at), out);
    }
  };
  if (k == 0) {
    std::vector<C> zeros(static_cast<size_t>(block.width));
    for (int64_t i = 0; i < block.height; i++) {
      finish(i, 1, zeros.data(), 0);
      std::fill(zeros.begin(), zeros.end(), C(0));
    }
    return;
  }
  Product<In> product{block.height, block.width, k, a, b, symmetric};
  if constexpr (std::is_same_v<Out, float>) {
    product.sums = in_place ? place<float>(c.tensor, top + block.row, block.col) : nullptr;
    product.stride = c.tensor.row_stride();
    product.accumulate = c.accumulate;
  }
  multiply(product, finish);
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
          return text(a) + (form.transpose_a ? "^T" : "") + " x " + text(b) +
                 (form.transpose_b ? "^T" : "") + " into " + text(c.tensor) +
                 ": sizes do not fit; transpose a side?";
        });
  check(!form.bias || form.bias.numel() == n,
        [&] { return "bias " + text(form.bias) + " for " + std::to_string(n) + " columns"; });
  bool symmetric = form.symmetric && m == n && !form.bias && !form.activated && !form.slope_at;
  const GemmKernel& kernel = gemm_kernel();
  const GemmProduct& product = std::is_same_v<In, bf16> ? kernel.bf16 : kernel.fp32;
  std::vector<Block> blocks = blocks_for(batch, m, n, k, symmetric, product.rows);
  int64_t per_matrix = int64_t(blocks.size()), with_sums = form.sums ? 1 : 0;
  parallel_tasks(with_sums + batch * per_matrix, [&](int64_t task) {
    if (task < with_sums) {
      Tensor sums = form.sums;
      return sum_rows(a, {sums, form.add_to_sums});
    }
    int64_t matrix = (task - with_sums) / per_matrix, top = matrix * m;
    const Block& block = blocks[size_t((task - with_sums) % per_matrix)];
    Operand<In> left{a.data<In>() + matrix * a_rows * a.row_stride(), a.row_stride(),
                     form.transpose_a};
    Operand<In> right{b.data<In>() + matrix * b_rows * b.row_stride(), b.row_stride(),
                      form.transpose_b};
    left.data = left.at(block.row, 0);
    right.data = right.at(0, block.col);
    compute_block<In, Out>(form, value_of(form.alpha, own_alphas ? matrix : 0), k, left, right, c,
                           symmetric, top, block);
    if (symmetric) mirror<Out>(c.tensor, top, block);
  });
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) {
  check(a.dtype() == b.dtype(),
        [&] { return text(a) + " x " + text(b) + ": element types differ"; });
  DType in = a.dtype(), out = c.tensor.dtype();
  if (in == DType::f32 && out == DType::f32) return matmul_typed<float, float>(a, b, c, form);
  if (in == DType::bf16 && out == DType::bf16) return matmul_typed<bf16, bf16>(a, b, c, form);
  if (in == DType::bf16 && out == DType::f32) return matmul_typed<bf16, float>(a, b, c, form);
  if (in == DType::f64 && out == DType::f64) return matmul_typed<double, double>(a, b, c, form);
  throw Error(text(a) + " x " + text(b) + " into " + text(c.tensor) +
              ": no such combination of types");
}

}  // namespace murmur::cpu
