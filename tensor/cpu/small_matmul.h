// tensor/cpu/small_matmul.h - c += a b for blocks that sit in the first-level cache.
//
// Eight rows by two vectors of c stay in registers while the inner dimension runs by; b is read in
// vectors, a is broadcast. Reaches 95% of the fp32 peak with AVX-512 (docs/results.md).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/dtype.h"

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

// Which lanes make the two results of an exchange of halves, for a pair of vectors whose lanes
// count on from one to the other. Tables, because g++ 12 makes such masks anew in every call.
template <class Lane, int L>
struct ExchangeMasks {
  alignas(kVectorBytes) Lane low[4][L] = {}, high[4][L] = {};
  constexpr ExchangeMasks() {
    for (int level = 0; level < 4; level++) {
      for (int j = 0, half = 1 << level; j < L; j++) {
        low[level][j] = Lane(j & half ? L + j - half : j);
        high[level][j] = Lane(j & half ? L + j : j + half);
      }
    }
  }
};
template <class Lane, int L>
inline constexpr ExchangeMasks<Lane, L> kExchange;

// Transposes a square block of words of type C, one vector a side, by exchanging halves of ever
// larger size between pairs of vectors. Rows lie `from_bytes` and `to_bytes` apart.
template <class C>
inline void transpose_words(const void* from, int64_t from_bytes, void* to, int64_t to_bytes) {
  using V = typename VectorOf<C>::type;
  using Lane = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  typedef Lane Mask __attribute__((vector_size(kVectorBytes)));
  constexpr int L = int(kLanes<C>);
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  V row[L];
  for (int i = 0; i < L; i++) std::memcpy(&row[i], in + i * from_bytes, sizeof(V));
#pragma GCC unroll 4
  for (int half = 1, level = 0; half < L; half *= 2, level++) {
    Mask low, high;
    std::memcpy(&low, kExchange<Lane, L>.low[level], sizeof(Mask));
    std::memcpy(&high, kExchange<Lane, L>.high[level], sizeof(Mask));
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
      if (i & half) continue;
      V a = row[i], b = row[i + half];
      row[i] = __builtin_shuffle(a, b, low);
      row[i + half] = __builtin_shuffle(a, b, high);
    }
  }
  for (int i = 0; i < L; i++) std::memcpy(out + i * to_bytes, &row[i], sizeof(V));
}

// Turns a block of kTurnRows x kLanes, from[i * from_stride + j], into to[j * to_stride + i].
template <class T>
constexpr int64_t kTurnRows = kVectorBytes / int64_t(sizeof(T));
template <class C>
inline void transpose_block(const C* from, int64_t from_stride, C* to, int64_t to_stride) {
  transpose_words<C>(from, from_stride * int64_t(sizeof(C)), to, to_stride * int64_t(sizeof(C)));
}

// pairs[q][j] = (from[2 q][j], from[2 q + 1][j]), 16 of each.
inline void make_pairs(const bf16* from, int64_t stride, uint32_t* pairs) {
  for (int64_t q = 0; q < 16; q++, from += 2 * stride) {
#pragma omp simd
    for (int64_t j = 0; j < 16; j++)
      pairs[q * 16 + j] = uint32_t(from[j].bits) | uint32_t(from[stride + j].bits) << 16;
  }
}
// 32 x 16: as pairs, which are words.
inline void transpose_block(const bf16* from, int64_t from_stride, bf16* to, int64_t to_stride) {
  alignas(kVectorBytes) uint32_t pairs[16 * 16];
  make_pairs(from, from_stride, pairs);
  transpose_words<float>(pairs, kVectorBytes, to, to_stride * int64_t(sizeof(bf16)));
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
