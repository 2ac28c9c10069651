// tensor/cuda/random.cu - counter-based random tensors: element i comes from block i / 4 of Philox,
// the same numbers as on the CPU.
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/vector.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/philox.h"

namespace murmur::cuda {

struct Uniform {
  double low, high;
  __device__ void operator()(const Philox& p, double* out) const {
    for (int i = 0; i < 4; i++) out[i] = low + (high - low) * double(p.uniform(i));
  }
};

// Box and Muller: two uniform numbers make two normal ones.
struct Normal {
  double mean, deviation;
  __device__ void operator()(const Philox& p, double* out) const {
    for (int i = 0; i < 4; i += 2) {
      double radius = sqrt(-2 * log(1 - double(p.uniform(i)))), sine, cosine;
      sincospi(2 * double(p.uniform(i + 1)), &sine, &cosine);
      out[i] = mean + deviation * radius * cosine;
      out[i + 1] = mean + deviation * radius * sine;
    }
  }
};

// A thread per block of four; always in double and then rounded.
template <class T, class F>
__global__ void __launch_bounds__(256)
    random_blocks(F f, uint64_t seed, uint64_t stream, int64_t n, T* x) {
  int64_t block = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (4 * block >= n) return;
  double four[4];
  f(Philox(seed, stream, uint64_t(block)), four);
  for (int i = 0; i < 4; i++) {
    if (4 * block + i < n) x[4 * block + i] = T(float(four[i]));
  }
}

namespace {

template <class F>
void fill_blocks(const F& f, uint64_t seed, uint64_t stream, Tensor& x) {
  check(x.contiguous(), "needs contiguous rows");
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch(random_blocks<T, F>, unsigned(ceil_div(ceil_div(x.numel(), 4), 256)), 256, 0, f, seed,
           stream, x.numel(), x.data<T>());
  });
}

}  // namespace

void random_uniform(uint64_t seed, uint64_t stream, double low, double high, Tensor& x) {
  fill_blocks(Uniform{low, high}, seed, stream, x);
}

void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation, Tensor& x) {
  fill_blocks(Normal{mean, deviation}, seed, stream, x);
}

}  // namespace murmur::cuda
