// tensor/cpu/mix.cpp - mixing with neighbours in a graph of ranks, and what they are sent as bytes.
#include <algorithm>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/quantize.h"

namespace murmur::cpu {
namespace {

// Calls f(begin, count) for all blocks of `size` among n elements, the last one perhaps shorter.
template <class F>
void over_blocks(int64_t n, int64_t size, int64_t bytes_per_element, const F& f) {
  int64_t blocks = (n + size - 1) / size;
  parallel_for(blocks, grain_for(blocks, size * bytes_per_element),
               [&](int64_t first, int64_t last) {
                 for (int64_t b = first; b < last; b++) f(b * size, std::min(size, n - b * size));
               });
}

// A sum over neighbours stays in the first-level cache, and with it its part of `own`.
constexpr int64_t kMixBlock = 256;

// Not inlined: g++ 12 would merge the calls for two neighbours into a loop that it does not
// vectorise.
template <class T, class Q>
__attribute__((noinline)) void add_difference(int64_t n, T weight, const Q* their, const Q* own,
                                              T* sum) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) sum[i] += weight * (T(their[i]) - T(own[i]));
}

// T: fp32 or fp64. Q: what was sent.
template <class T, class Q>
void mix_all(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
             const std::vector<double>& weights, Tensor& y) {
  std::vector<const Q*> sent;
  for (const Tensor& their : theirs) sent.push_back(their.data<Q>());
  const T* from = x.data<T>();
  const Q* mine = own.data<Q>();
  T* to = y.data<T>();
  int64_t bytes = int64_t(2 * sizeof(T) + (1 + sent.size()) * sizeof(Q));
  over_blocks(x.numel(), kMixBlock, bytes, [&](int64_t at, int64_t n) {
    alignas(64) T sum[kMixBlock];
    std::fill_n(sum, n, T(0));
    for (size_t j = 0; j < sent.size(); j++)
      add_difference(n, T(weights[j]), sent[j] + at, mine + at, sum);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[at + i] = from[at + i] + sum[i];
  });
}

template <class T>
void quantize_block(int64_t n, const T* x, int8_t* bytes, bf16& scale) {
  uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; i++) largest = std::max(largest, Quantize::magnitude(float(x[i])));
  Quantize quantize(bit_cast<float>(largest));
#pragma omp simd
  for (int64_t i = 0; i < n; i++) bytes[i] = quantize(float(x[i]));
  scale = quantize.scale;
}

template <class T>
void dequantize_block(int64_t n, const int8_t* bytes, float scale, T* x) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = T(scale * float(bytes[i]));
}

// The scales in a packed tensor for n elements; before them are the bytes.
bf16* scales_of(const Tensor& packed, int64_t n) {
  return reinterpret_cast<bf16*>(packed.data<int32_t>() + (n + 3) / 4);
}

}  // namespace

void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
         const std::vector<double>& weights, Tensor& y) {
  check_mix(x, own, theirs, weights, y);
  dispatch(own.dtype(), [&](auto sent) {
    using Q = decltype(sent);
    if (x.dtype() == DType::f64) return mix_all<double, Q>(x, own, theirs, weights, y);
    mix_all<float, Q>(x, own, theirs, weights, y);
  });
}

void quantize(const Tensor& x, Tensor& packed) {
  check_packed(x, packed);
  int64_t n = x.numel();
  if (n == 0) return;
  // What is left of the last words is 0, so that all bits are those of x.
  packed.data<int32_t>()[(n + 3) / 4 - 1] = packed.data<int32_t>()[packed.numel() - 1] = 0;
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* from = x.data<T>();
    auto* bytes = static_cast<int8_t*>(packed.raw());
    bf16* scales = scales_of(packed, n);
    over_blocks(n, kQuantizedBlock, sizeof(T) + 1, [=](int64_t at, int64_t count) {
      quantize_block(count, from + at, bytes + at, scales[at / kQuantizedBlock]);
    });
  });
}

void dequantize(const Tensor& packed, Tensor& x) {
  check_packed(x, packed);
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    T* to = x.data<T>();
    auto* bytes = static_cast<const int8_t*>(packed.raw());
    const bf16* scales = scales_of(packed, x.numel());
    over_blocks(x.numel(), kQuantizedBlock, sizeof(T) + 1, [=](int64_t at, int64_t count) {
      dequantize_block(count, bytes + at, scales[at / kQuantizedBlock], to + at);
    });
  });
}

}  // namespace murmur::cpu
