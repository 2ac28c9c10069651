// tensor/cpu/gather.cpp - rows of a table by token, and the gradient back into the table.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {

void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions, Tensor& y) {
  int64_t n = tokens.numel(), cols = table.cols(), times = tokens.cols();
  check_gather(table, tokens, positions, y);
  const int32_t* token = tokens.data<int32_t>();
  for (int64_t i = 0; i < n; i++) {
    check(token[i] >= 0 && token[i] < table.rows(), [&] {
      return "token " + std::to_string(token[i]) + " outside a table of " +
             std::to_string(table.rows()) + " rows";
    });
  }
  dispatch(table.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    parallel_for(n, grain_for(n, cols * int64_t(sizeof(T)) * 2), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const T* row = table.data<T>() + token[i] * table.row_stride();
        T* out = y.data<T>() + i * cols;
        if (positions) {
          const T* position = positions.data<T>() + i % times * positions.row_stride();
#pragma omp simd
          for (int64_t c = 0; c < cols; c++) out[c] = T(C(row[c]) + C(position[c]));
        } else {
          std::copy(row, row + cols, out);
        }
      }
    });
  });
}

// Columns are dealt out in blocks; each block walks the tokens in order, so every sum has one
// order.
void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) {
  int64_t n = tokens.numel(), cols = dy.cols();
  Tensor& table = dtable.tensor;
  check_gather_backward(tokens, dy, table);
  if (!dtable.accumulate) fill(table, 0);
  const int32_t* token = tokens.data<int32_t>();
  dispatch(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    parallel_for(cols, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < n; i++) {
        const T* in = dy.data<T>() + i * dy.row_stride();
        C* out = table.data<C>() + token[i] * table.row_stride();
#pragma omp simd
        for (int64_t c = begin; c < end; c++) out[c] += C(in[c]);
      }
    });
  });
}

}  // namespace murmur::cpu
