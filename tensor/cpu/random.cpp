// tensor/cpu/random.cpp - counter-based random tensors: element i comes from block i / 4 of Philox.
#include <cmath>

#include "tensor/cpu/parallel.h"
#include "tensor/dispatch.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/philox.h"

namespace murmur::cpu {
namespace {

// f(block, out[4]) makes four numbers at a time; always in double and then rounded, so that fp32
// and fp64 models start from the same numbers.
template <class F>
void fill_blocks(Tensor& x, const F& f) {
  check(x.contiguous(), "needs contiguous rows");
  int64_t n = x.numel(), blocks = (n + 3) / 4;
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    T* out = x.data<T>();
    parallel_for(blocks, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) {
        double four[4];
        f(uint64_t(b), four);
        for (int64_t i = 0; i < 4 && 4 * b + i < n; i++) out[4 * b + i] = T(C(four[i]));
      }
    });
  });
}

}  // namespace

void random_uniform(uint64_t seed, uint64_t stream, double low, double high, Tensor& x) {
  fill_blocks(x, [=](uint64_t block, double* out) {
    Philox p(seed, stream, block);
    for (int i = 0; i < 4; i++) out[i] = low + (high - low) * double(p.uniform(i));
  });
}

// Box and Muller: two uniform numbers make two normal ones.
void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation, Tensor& x) {
  fill_blocks(x, [=](uint64_t block, double* out) {
    Philox p(seed, stream, block);
    for (int i = 0; i < 4; i += 2) {
      double radius = std::sqrt(-2 * std::log(1 - double(p.uniform(i))));
      double angle = 2 * M_PI * double(p.uniform(i + 1));
      out[i] = mean + deviation * radius * std::cos(angle);
      out[i + 1] = mean + deviation * radius * std::sin(angle);
    }
  });
}

}  // namespace murmur::cpu
