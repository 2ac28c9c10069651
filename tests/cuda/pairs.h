// tests/cuda/pairs.h - tensors that exist twice, on the CPU and on the GPU, for tests that do the
// same to both and compare.
#pragma once

#include "tensor/ops.h"
#include "tests/cuda/parity.h"

namespace murmur {

// `whole` is what the tensor lies in: it is compared, too, so that a kernel that writes beside its
// tensor is seen.
struct Pair {
  Tensor host, device, whole_host, whole_device;

  const Tensor& on(Device d) const { return d == Device::cpu ? host : device; }
  Tensor& on(Device d) { return d == Device::cpu ? host : device; }
};

inline Pair pair_of(const Tensor& x) {
  Tensor y = on_gpu(x);
  return {x, y, x, y};
}

// Numbers; with a margin, in the middle of rows that are that much longer on both sides.
inline Pair values(Shape shape, DType dtype, uint64_t seed, int64_t margin = 0,
                   double deviation = 1) {
  int64_t cols = shape.cols();
  if (margin) shape[-1] += 2 * margin;
  Pair p = pair_of(random(shape, dtype, seed, deviation));
  if (margin) {
    p.host = p.whole_host.columns(margin, margin + cols);
    p.device = p.whole_device.columns(margin, margin + cols);
  }
  return p;
}

// A result to be: NaN wherever nobody writes.
inline Pair result(Shape shape, DType dtype, int64_t margin = 0) {
  Pair p = values(shape, dtype, 99, margin);
  for (Device d : {Device::cpu, Device::cuda}) {
    ops::fill(p.on(d), std::numeric_limits<double>::quiet_NaN());
  }
  return p;
}

// A result that is added to has numbers before, any other has NaN.
inline Pair destination(Shape shape, DType dtype, bool accumulate, int64_t margin = 0) {
  return accumulate ? values(shape, dtype, 98, margin) : result(shape, dtype, margin);
}

// Does f(device) on both sides.
template <class F>
void on_both(const F& f) {
  for (Device d : {Device::cpu, Device::cuda}) f(d);
}

inline void check_equal(const Pair& p) {
  CHECK(relative_error(p.whole_device, p.whole_host) <= tolerance(p.host.dtype()));
}

constexpr DType kSingle[] = {DType::f32, DType::bf16};

}  // namespace murmur
