// tensor/cpu/transpose.h - blocks of a matrix transposed, a vector a row.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "tensor/dtype.h"

namespace murmur {

// A vector register. Longer vectors than the processor has would be kept in memory.
#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif
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

// Exchanges blocks of kHalf lanes between two vectors: the upper ones of a for the lower ones of b.
template <int kHalf, class V, int... lane>
inline void exchange(V& a, V& b, std::integer_sequence<int, lane...>) {
  constexpr int L = sizeof...(lane);
  V low = __builtin_shufflevector(a, b, (lane & kHalf ? L + lane - kHalf : lane)...);
  V high = __builtin_shufflevector(a, b, (lane & kHalf ? L + lane : lane + kHalf)...);
  a = low;
  b = high;
}
template <int kHalf, int L, class V>
inline void exchange_all(V (&row)[L]) {
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) {
    if (!(i & kHalf)) exchange<kHalf>(row[i], row[i + kHalf], std::make_integer_sequence<int, L>());
  }
  if constexpr (2 * kHalf < L) exchange_all<2 * kHalf>(row);
}

// Of all lanes, in every lane: f of pairs, then of pairs of those.
template <int kHalf = 1, class V, class F>
inline V fold(V v, const F& f) {
  constexpr int L = int(sizeof(V) / sizeof(v[0]));
  V other = v;
  exchange<kHalf>(v, other, std::make_integer_sequence<int, L>());
  if constexpr (2 * kHalf < L) return fold<2 * kHalf, V>(f(v, other), f);
  return f(v, other);
}

// Transposes a square block of words of type C, one vector a side, by exchanging halves of ever
// larger size between pairs of vectors. Rows lie `from_bytes` and `to_bytes` apart.
template <class C>
inline void transpose_words(const void* from, int64_t from_bytes, void* to, int64_t to_bytes) {
  using V = typename VectorOf<C>::type;
  constexpr int L = int(kLanes<C>);
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  V row[L];
  for (int i = 0; i < L; i++) std::memcpy(&row[i], in + i * from_bytes, sizeof(V));
  exchange_all<1>(row);
  for (int i = 0; i < L; i++) std::memcpy(out + i * to_bytes, &row[i], sizeof(V));
}

// Turns a block of kTurnRows x kLanes, from[i * from_stride + j], into to[j * to_stride + i].
template <class T>
constexpr int64_t kTurnRows = kVectorBytes / int64_t(sizeof(T));
template <class C>
inline void transpose_block(const C* from, int64_t from_stride, C* to, int64_t to_stride) {
  transpose_words<C>(from, from_stride * int64_t(sizeof(C)), to, to_stride * int64_t(sizeof(C)));
}

// pairs[q][j] = (from[2 q][j], from[2 q + 1][j]), kSide of each.
template <int64_t kSide>
inline void make_pairs(const bf16* from, int64_t stride, uint32_t* pairs) {
  for (int64_t q = 0; q < kSide; q++, from += 2 * stride) {
#pragma omp simd
    for (int64_t j = 0; j < kSide; j++)
      pairs[q * kSide + j] = uint32_t(from[j].bits) | uint32_t(from[stride + j].bits) << 16;
  }
}
// As pairs, which are words: twice as many rows as columns.
inline void transpose_block(const bf16* from, int64_t from_stride, bf16* to, int64_t to_stride) {
  alignas(kVectorBytes) uint32_t pairs[kLanes<float> * kLanes<float>];
  make_pairs<kLanes<float>>(from, from_stride, pairs);
  transpose_words<float>(pairs, kVectorBytes, to, to_stride * int64_t(sizeof(bf16)));
}

}  // namespace murmur
