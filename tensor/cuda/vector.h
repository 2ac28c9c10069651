// tensor/cuda/vector.h - neighbours of a row, 16 bytes at a time, between memory and registers.
//
// Memory gives its full rate only to wide accesses: a thread works on N neighbours, as floats, and
// reads and writes them in one instruction each where the addresses allow it.
#pragma once

#include <algorithm>
#include <type_traits>

#include "tensor/cuda/instructions.h"
#include "tensor/dispatch.h"

namespace murmur::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many neighbours a thread takes: 16 bytes of the widest type.
template <class... T>
constexpr int kNeighbours = 16 / int(std::max({sizeof(T)...}));

// N neighbours as they lie in memory: 4 bytes, 8, or a multiple of 16.
template <class T, int N>
struct __attribute__((may_alias, aligned(std::min<size_t>(N * sizeof(T), 16)))) Vector {
  using C = Compute<T>;
  uint32_t words[N * sizeof(T) / 4];

  __device__ static Vector at(const T* p) { return *reinterpret_cast<const Vector*>(p); }
  __device__ void to(T* p) const { *reinterpret_cast<Vector*>(p) = *this; }

  __device__ static Vector of(const C* v) {
    Vector x;
    if constexpr (std::is_same_v<T, bf16>) {
      for (int i = 0; i < N / 2; i++) x.words[i] = pack(v[2 * i], v[2 * i + 1]);
    } else {
      __builtin_memcpy(x.words, v, sizeof x.words);
    }
    return x;
  }
  __device__ void unpack(C* v) const {
    if constexpr (std::is_same_v<T, bf16>) {
      for (int i = 0; i < N / 2; i++) {
        v[2 * i] = bit_cast<float>(words[i] << 16);
        v[2 * i + 1] = bit_cast<float>(words[i] & 0xffff0000u);
      }
    } else {
      __builtin_memcpy(v, words, sizeof words);
    }
  }
};

// Elements [at, at + count) of a row. `whole`: all N there are, at addresses for wide accesses.
struct Place {
  int64_t row, at;
  int count;
  bool whole;
};
__device__ inline Place place(int64_t row, int64_t at, int64_t cols, int n, bool wide) {
  int count = cols - at < n ? int(cols - at) : n;
  return {row, at, count, wide && count == n};
}

// The rows of a tensor, for a kernel. What lies beyond `count` reads as 0 and is not written.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;

  // May a kernel read and write N elements at a time?
  bool wide(int n) const {
    uint64_t bytes = std::min<uint64_t>(16, uint64_t(n) * sizeof(T));
    return reinterpret_cast<uintptr_t>(data) % bytes == 0 && stride % n == 0;
  }
  __device__ T* row(int64_t r) const { return data + r * stride; }
  template <int N>
  __device__ void load(float (&v)[N], const Place& p) const {
    const T* from = row(p.row) + p.at;
    if (p.whole) return Vector<T, N>::at(from).unpack(v);
    for (int i = 0; i < N; i++) v[i] = i < p.count ? float(from[i]) : 0.f;
  }
  template <int N>
  __device__ void load_if(bool wanted, float (&v)[N], const Place& p) const {
    if (wanted) return load(v, p);
    for (float& x : v) x = 0;
  }
  template <int N>
  __device__ void store(const float (&v)[N], const Place& p) const {
    T* to = row(p.row) + p.at;
    if (p.whole) return Vector<T, N>::of(v).to(to);
    for (int i = 0; i < N; i++) {
      if (i < p.count) to[i] = T(v[i]);
    }
  }
};

// x as e.rows rows. A contiguous tensor may be cut into any number of them; of one, nobody needs
// the stride.
template <class T>
Rows<T> rows_of(const Tensor& x, Extent e) {
  if (!x) return {};
  return {x.data<T>(), e.rows == 1 ? 0 : x.contiguous() ? e.cols : x.row_stride()};
}
template <class T>
Rows<T> rows_of(const Tensor& x) {
  return rows_of<T>(x, x ? Extent{x.rows(), x.cols()} : Extent{});
}

}  // namespace murmur::cuda
