// tensor/cpu/reduce.cpp - sums over rows and over everything, in an order fixed by the shape.
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

constexpr int64_t kPieces = 64;  // partial sums; a property of the problem, not of the machine

template <class F>
double sum_pieces(const Tensor& x, const F& f) {
  Extent e = extent_of(x);
  int64_t n = e.rows == 1 ? e.cols : e.rows;
  int64_t grain = std::max<int64_t>(e.rows == 1 ? 16384 : 1, (n + kPieces - 1) / kPieces);
  std::vector<double> partial(size_t((n + grain - 1) / grain), 0.0);
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_for(n, grain, [&](int64_t begin, int64_t end) {
      double total = 0;
      if (e.rows == 1) {
        total = f(x.data<T>() + begin, end - begin);
      } else {
        for (int64_t r = begin; r < end; r++) total += f(x.data<T>() + r * x.row_stride(), e.cols);
      }
      partial[size_t(begin / grain)] = total;
    });
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

// y[k] <- factor (the sum of f over part k).
template <class F>
void sum_parts(double factor, const Tensor& x, Tensor& y, const F& f) {
  check_parts(x, y);
  int64_t parts = y.numel();
  auto put = [&](int64_t k, double s) {
    dispatch(y.dtype(), [&](auto type) {
      y.data<decltype(type)>()[k] = decltype(type)(Compute<decltype(type)>(factor * s));
    });
  };
  if (parts == x.rows()) {  // one for every row
    dispatch(x.dtype(), [&](auto type) {
      using T = decltype(type);
      parallel_for(parts, grain_for(parts, int64_t(sizeof(T)) * x.cols()),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; r++)
                       put(r, f(x.data<T>() + r * x.row_stride(), x.cols()));
                   });
    });
    return;
  }
  int64_t length = parts == 1 ? 0 : x.shape()[0] / parts;
  for (int64_t k = 0; k < parts; k++)
    put(k, sum_pieces(parts == 1 ? x : x.slice(k * length, (k + 1) * length), f));
}

}  // namespace

void sum(double factor, const Tensor& x, Tensor& y) {
  sum_parts(factor, x, y, [](const auto* v, int64_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += double(v[i]);
    return s;
  });
}

void sum_of_squares(const Tensor& x, Tensor& y) {
  sum_parts(1, x, y, [](const auto* v, int64_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += double(v[i]) * double(v[i]);
    return s;
  });
}

// Two stages: pieces of rows add into their own row of `partial`, then the pieces are added up.
void sum_rows(const Tensor& x, Into y) {
  int64_t rows = x.rows(), cols = x.cols();
  check_sum_rows(x, y.tensor);
  int64_t grain = std::max<int64_t>(16, (rows + kPieces - 1) / kPieces),
          pieces = (rows + grain - 1) / grain;
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Tensor partial({pieces, cols}, y.tensor.dtype());
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      C* p = partial.data<C>() + begin / grain * cols;
      std::fill(p, p + cols, C(0));
      for (int64_t r = begin; r < end; r++) {
        const T* v = x.data<T>() + r * x.row_stride();
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) p[c] += C(v[c]);
      }
    });
    const C* p = partial.data<C>();
    C* out = y.tensor.data<C>();
    parallel_for(cols, 1024, [&](int64_t begin, int64_t end) {
      if (!y.accumulate) std::fill(out + begin, out + end, C(0));
      for (int64_t piece = 0; piece < pieces; piece++) {
#pragma omp simd
        for (int64_t c = begin; c < end; c++) out[c] += p[piece * cols + c];
      }
    });
  });
}

}  // namespace murmur::cpu
