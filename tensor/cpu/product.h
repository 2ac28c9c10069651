// tensor/cpu/product.h - one block of a product of matrices on one thread, whatever their type:
// gemm.h for fp32 and bf16, plain loops for fp64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "tensor/cpu/gemm.h"
#include "tensor/dtype.h"

namespace murmur {

// One side; element (i, j) of op(x).
template <class T>
struct Operand {
  const T* data;
  int64_t stride;
  bool transposed = false;
  const T* at(int64_t row, int64_t column) const {
    return data + (transposed ? column * stride + row : row * stride + column);
  }
};

// sums (+)= a b, as GemmBlock has it.
template <class T>
struct Product {
  int64_t m, n, k;
  Operand<T> a, b;
  bool lower = false, left_is_lower = false, left_is_upper = false;
  int64_t diagonal = 0;
  Compute<T>* sums = nullptr;
  int64_t stride = 0;
  bool accumulate = false;
};

// Calls finish(row, height, sums, stride) for strips of rows, in order. Sums that exist for it
// alone may be read and written up to a multiple of 32 columns.
template <class T, class F>
void multiply(const Product<T>& p, const F& finish) {
  if constexpr (std::is_same_v<T, double>) {
    std::vector<double> row(static_cast<size_t>((p.n + 31) / 32 * 32));
    for (int64_t i = 0; i < p.m; i++) {
      double* sums = p.sums ? p.sums + i * p.stride : row.data();
      if (!p.sums || !p.accumulate) std::fill(sums, sums + p.n, 0.0);
      int64_t from = p.left_is_upper ? std::max<int64_t>(0, i - p.diagonal) : 0;
      int64_t to = p.left_is_lower ? std::min(p.k, i + p.diagonal + 1) : p.k;
      for (int64_t q = from; q < to; q++) {
        double x = *p.a.at(i, q);
        for (int64_t j = 0; j < p.n; j++) sums[j] += x * *p.b.at(q, j);
      }
      finish(i, 1, sums, p.stride);
    }
  } else {
    constexpr bool kBf16 = std::is_same_v<T, bf16>;
    GemmBlock block{.m = p.m,
                    .n = p.n,
                    .k = p.k,
                    .left = {p.a.data, p.a.stride, !p.a.transposed, kBf16},
                    .right = {p.b.data, p.b.stride, p.b.transposed, kBf16},
                    .lower = p.lower,
                    .left_is_lower = p.left_is_lower,
                    .left_is_upper = p.left_is_upper,
                    .diagonal = p.diagonal,
                    .sums = p.sums,
                    .stride = p.stride,
                    .accumulate = p.accumulate,
                    .context = &finish};
    block.finish = [](const void* context, int64_t row, int64_t height, float* sums,
                      int64_t stride) {
      (*static_cast<const F*>(context))(row, height, sums, stride);
    };
    run(kBf16 ? gemm_kernel().bf16 : gemm_kernel().fp32, block);
  }
}

}  // namespace murmur
