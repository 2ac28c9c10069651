// tensor/cpu/quantize.cpp - blocks of numbers as bytes and a scale, and back.
#include "tensor/ops/quantize.h"

#include <algorithm>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"

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
