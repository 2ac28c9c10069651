// tensor/cuda/mix.cu - mixing with neighbours in a graph of ranks, and what they are sent as bytes.
#include "tensor/checks.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/cuda/reductions.h"  // warp_reduce
#include "tensor/ops/functions.h"
#include "tensor/ops/quantize.h"

namespace murmur::cuda {

// before + sum_j weights[j] (theirs[j] - own), as an operand. What it knows of the neighbours are
// parameters of the kernel: that is why one launch has only so many.
template <class Q>
struct Correction {
  static constexpr int kBytes = sizeof(Q), kMost = 128;
  Rows<float> before;
  Rows<Q> own;
  int count = 0;
  float weights[kMost] = {};
  const Q* theirs[kMost] = {};

  bool wide(int n) const {
    return std::all_of(theirs, theirs + count, [n](const Q* p) { return rows(p).wide(n); }) &&
           before.wide(n) && own.wide(n);
  }
  template <int N>
  __device__ void load(float (&sum)[N], const Place& p) const {
    float mine[N];
    own.load(mine, p);
    before.load_if(before.data, sum, p);
    auto add_differences = [&](const Place& q) {
#pragma unroll 4
      for (int j = 0; j < count; j++) {
        float v[N];
        rows(theirs[j]).load(v, q);
        for (int i = 0; i < N; i++) sum[i] += weights[j] * (v[i] - mine[i]);
      }
    };
    // One loop without branches, which has the numbers of several neighbours under way at once.
    p.whole ? add_differences({p.row, p.at, N, true})
            : add_differences({p.row, p.at, p.count, false});
  }
  MURMUR_HD static Rows<const Q> rows(const Q* p) { return {p}; }
};

struct Correct {
  __device__ void operator()(float x, float correction, float& y) const { y = x + correction; }
};

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
  static constexpr int kBytes = 1;
  const uint32_t* words;
  const bf16* scales;

  bool wide(int) const { return true; }
  template <int N>
  __device__ void load(float (&v)[N], const Place& p) const {
    float scale = scales[p.at / kQuantizedBlock];
    for (int i = 0; i < N; i += 4) {
      uint32_t word = i < p.count ? words[(p.at + i) / 4] : 0;
      for (int k = 0; k < 4; k++) v[i + k] = scale * float(int8_t(word >> 8 * k));
    }
  }
};

struct Assign {
  __device__ void operator()(float x, float& y) const { y = x; }
};

namespace {

void check_fp32(const Tensor& x) {
  check(x.dtype() == DType::f32, [&] { return "not for " + text(x) + " on this device"; });
}

bf16* scales_of(const Tensor& packed, int64_t n) {
  return reinterpret_cast<bf16*>(packed.data<int32_t>() + ceil_div(n, 4));
}

}  // namespace

// More neighbours than one launch takes: the sum of the first ones waits in memory, for the last
// launch to add it to x.
void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
         const std::vector<double>& weights, Tensor& y) {
  check_mix(x, own, theirs, weights, y);
  check_fp32(x);
  Extent e{1, x.numel()};
  dispatch_single(own.dtype(), [&](auto type) {
    using Q = decltype(type);
    size_t most = Correction<Q>::kMost, next = 0;
    Tensor sum;
    do {
      Correction<Q> correction{rows_of<float>(sum, e), rows_of<Q>(own, e)};
      for (; next < theirs.size() && correction.count < int(most); next++, correction.count++) {
        correction.weights[correction.count] = float(weights[next]);
        correction.theirs[correction.count] = theirs[next].data<Q>();
      }
      bool last = next == theirs.size();
      if (!last && !sum) sum = Tensor(x.shape(), DType::f32, Device::cuda);
      Repeated<float> from{{rows_of<float>(last ? x : Tensor(), e)}, 1, false};
      launch_elementwise(Correct{}, e, from, correction, out<float>(last ? y : sum, e));
    } while (next < theirs.size());
  });
}

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
    launch_elementwise(Assign{}, e, from, out<decltype(type)>(x, e));
  });
}

}  // namespace murmur::cuda
