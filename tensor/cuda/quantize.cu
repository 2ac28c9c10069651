// tensor/cuda/quantize.cu - blocks of numbers as bytes and a scale, and back.
#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/quantize.h"

namespace murmur::cuda {

// Sixteen lanes for a block of 64, four neighbours each; warps are whole, and so are the words that
// they write.
template <class T>
__global__ void __launch_bounds__(256)
    quantize_blocks(Rows<T> x, int64_t n, bool wide, uint32_t* words, bf16* scales) {
  int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread / 32 * 128 >= n) return;
  Place p = place(0, 4 * thread, n, 4, wide);
  float v[4];
  x.load(v, p);
  uint32_t largest = 0;
  for (float number : v) largest = Max2{}(largest, Quantize::magnitude(number));
  Quantize quantize(bit_cast<float>(warp_reduce(largest, Max2{}, 16)));
  uint32_t word = 0;
  for (int i = 0; i < 4; i++) word |= uint32_t(uint8_t(quantize(v[i]))) << 8 * i;
  if (p.count > 0) words[thread] = word;
  if (threadIdx.x % 16 == 0) scales[thread / 16] = p.count > 0 ? quantize.scale : bf16();
}

// Numbers of a packed tensor, as an operand.
struct Packed {
  using C = float;
  static constexpr int kBytes = 1;
  const uint32_t* words;
  const bf16* scales;

  bool aligned(int) const { return true; }
  KERNEL Packed at(Row) const { return *this; }
  template <int N>
  KERNEL Pack<float, N> load(Index at) const {
    float scale = scales[at.i / kQuantizedBlock];
    Pack<float, N> x;
    for (int j = 0; j < N; j++)
      x[j] = scale * float(int8_t(words[(at.i + j) / 4] >> (at.i + j) % 4 * 8));
    return x;
  }
  template <int N>
  KERNEL void store(const Pack<float, N>&, Index) const {}
};

struct Unpack {
  KERNEL void operator()(float x, float& y) const { y = x; }
};

namespace {

bf16* scales_of(const Tensor& packed, int64_t n) {
  return reinterpret_cast<bf16*>(packed.data<int32_t>() + ceil_div(n, 4));
}

}  // namespace

void quantize(const Tensor& x, Tensor& packed) {
  check_packed(x, packed);
  int64_t n = x.numel();
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> rows = rows_of<T>(x, {1, n});
    launch(quantize_blocks<T>, unsigned(ceil_div(n, 4 * 256)), 256, 0, rows, n, rows.wide(4),
           static_cast<uint32_t*>(packed.raw()), scales_of(packed, n));
  });
}

void dequantize(const Tensor& packed, Tensor& x) {
  check_packed(x, packed);
  Extent e{1, x.numel()};
  dispatch_single(x.dtype(), [&](auto type) {
    Packed from{static_cast<const uint32_t*>(packed.raw()), scales_of(packed, e.cols)};
    for_each_element(e, Unpack{}, from, out<decltype(type)>(x, e));
  });
}

}  // namespace murmur::cuda
