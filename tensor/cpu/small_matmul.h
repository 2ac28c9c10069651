// tensor/cpu/small_matmul.h - c += a b for blocks that sit in the first-level cache.
//
// Eight rows by two vectors of c stay in registers while the inner dimension runs by; b is read in
// vectors, a is broadcast. Reaches 95% of the fp32 peak with AVX-512 (docs/results.md).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

// How the left side lies in memory: a(i, p) = data[i * stride + p], or data[p * stride + i].
enum class Left { rows, columns };

// Turns the square block from[i * from_stride + j] into to[j * to_stride + i], one vector a side,
// by exchanging halves of ever smaller size between pairs of vectors.
template <class C>
inline void transpose_block(const C* from, int64_t from_stride, C* to, int64_t to_stride) {
  using V = typename VectorOf<C>::type;
  using Lane = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  typedef Lane Mask __attribute__((vector_size(kVectorBytes)));
  constexpr int L = int(kLanes<C>);
  V row[L];
  for (int i = 0; i < L; i++) std::memcpy(&row[i], from + i * from_stride, sizeof(V));
#pragma GCC unroll 4
  for (int half = 1; half < L; half *= 2) {
    Mask low, high;
    for (int j = 0; j < L; j++) {
      low[j] = Lane(j & half ? L + j - half : j);
      high[j] = Lane(j & half ? L + j : j + half);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
      if (i & half) continue;
      V a = row[i], b = row[i + half];
      row[i] = __builtin_shuffle(a, b, low);
      row[i + half] = __builtin_shuffle(a, b, high);
    }
  }
  for (int i = 0; i < L; i++) std::memcpy(to + i * to_stride, &row[i], sizeof(V));
}

template <Left kLeft, int kRows, int kVectors, class C>
inline void tile_matmul(int64_t k, const C* a, int64_t a_stride, const C* b, int64_t b_stride, C* c,
                        int64_t c_stride) {
  using V = typename VectorOf<C>::type;
  V sum[kRows][kVectors];
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kVectors; j++) {
      std::memcpy(&sum[i][j], c + i * c_stride + j * kLanes<C>, sizeof(V));
    }
  }
  for (int64_t p = 0; p < k; p++) {
    V right[kVectors];
    for (int j = 0; j < kVectors; j++) {
      std::memcpy(&right[j], b + p * b_stride + j * kLanes<C>, sizeof(V));
    }
    for (int i = 0; i < kRows; i++) {
      C left = kLeft == Left::rows ? a[i * a_stride + p] : a[p * a_stride + i];
      for (int j = 0; j < kVectors; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kVectors; j++) {
      std::memcpy(c + i * c_stride + j * kLanes<C>, &sum[i][j], sizeof(V));
    }
  }
}

// c (m, n) += a (m, k) b (k, n); b and c row-major, n a multiple of the vector length.
template <Left kLeft, class C>
inline void small_matmul(int64_t m, int64_t n, int64_t k, const C* a, int64_t a_stride, const C* b,
                         int64_t b_stride, C* c, int64_t c_stride) {
  constexpr int64_t L = kLanes<C>;
  for (int64_t j = 0; j < n; j += 2 * L) {
    bool pair = j + 2 * L <= n;
    for (int64_t i = 0; i < m;) {
      const C* left = kLeft == Left::rows ? a + i * a_stride : a + i;
      C* out = c + i * c_stride + j;
      if (m - i >= 8) {
        pair ? tile_matmul<kLeft, 8, 2>(k, left, a_stride, b + j, b_stride, out, c_stride)
             : tile_matmul<kLeft, 8, 1>(k, left, a_stride, b + j, b_stride, out, c_stride);
        i += 8;
      } else {
        pair ? tile_matmul<kLeft, 1, 2>(k, left, a_stride, b + j, b_stride, out, c_stride)
             : tile_matmul<kLeft, 1, 1>(k, left, a_stride, b + j, b_stride, out, c_stride);
        i += 1;
      }
    }
  }
}

}  // namespace murmur
