// tensor/cpu/gather.cpp - the gradient of rows that were taken out of a table, back into it.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {

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
