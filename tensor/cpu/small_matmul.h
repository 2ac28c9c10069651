// tensor/cpu/small_matmul.h - c += a b for blocks that sit in the first-level cache.
//
// Eight rows by two vectors of c stay in registers while the inner dimension runs by; b is read in
// vectors, a is broadcast. Reaches 95% of the fp32 peak with AVX-512 (docs/results.md).
#pragma once

#include <cstdint>
#include <cstring>

namespace murmur {

constexpr int64_t kVectorBytes = 64;
template <class C>
constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(C));

typedef float FloatVector __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVector __attribute__((vector_size(kVectorBytes)));
template <class C>
struct VectorOf {
  using type = FloatVector;
};
template <>
struct VectorOf<double> {
  using type = DoubleVector;
};

// a(i, p) = a[i * row + p * column]: a transposed view costs nothing.
template <class C>
struct Broadcast {
  const C* data;
  int64_t row, column;
};

template <int kRows, int kVectors, class C>
inline void tile_matmul(int64_t k, Broadcast<C> a, const C* b, int64_t b_stride, C* c,
                        int64_t c_stride) {
  using V = typename VectorOf<C>::type;
  V sum[kRows][kVectors];
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kVectors; j++)
      std::memcpy(&sum[i][j], c + i * c_stride + j * kLanes<C>, sizeof(V));
  }
  for (int64_t p = 0; p < k; p++) {
    V right[kVectors];
    for (int j = 0; j < kVectors; j++)
      std::memcpy(&right[j], b + p * b_stride + j * kLanes<C>, sizeof(V));
    for (int i = 0; i < kRows; i++) {
      C left = a.data[i * a.row + p * a.column];
      for (int j = 0; j < kVectors; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kVectors; j++)
      std::memcpy(c + i * c_stride + j * kLanes<C>, &sum[i][j], sizeof(V));
  }
}

// c (m, n) += a (m, k) b (k, n), all row-major; n a multiple of the vector length.
template <class C>
inline void small_matmul(int64_t m, int64_t n, int64_t k, Broadcast<C> a, const C* b,
                         int64_t b_stride, C* c, int64_t c_stride) {
  constexpr int64_t L = kLanes<C>;
  for (int64_t j = 0; j < n; j += 2 * L) {
    bool pair = j + 2 * L <= n;
    for (int64_t i = 0; i < m;) {
      Broadcast<C> rows{a.data + i * a.row, a.row, a.column};
      C* out = c + i * c_stride + j;
      if (m - i >= 8) {
        pair ? tile_matmul<8, 2>(k, rows, b + j, b_stride, out, c_stride)
             : tile_matmul<8, 1>(k, rows, b + j, b_stride, out, c_stride);
        i += 8;
      } else {
        pair ? tile_matmul<1, 2>(k, rows, b + j, b_stride, out, c_stride)
             : tile_matmul<1, 1>(k, rows, b + j, b_stride, out, c_stride);
        i += 1;
      }
    }
  }
}

}  // namespace murmur
