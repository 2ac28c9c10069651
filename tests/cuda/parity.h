// tests/cuda/parity.h - the CUDA engine beside the CPU engine on the same numbers.
//
// The tests that include this run twice: built by nvcc on a GPU, and built by g++ over
// tests/cuda_on_cpu/ on any machine.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tensor/backend.h"
#include "tensor/ops.h"

#ifdef MURMUR_CUDA_ON_CPU
#include <cuda_runtime.h>  // cuda_on_cpu::set_order
#endif

namespace murmur {

inline const Backend& gpu() { return backend(Device::cuda); }

// Normally distributed; the same for the same seed, whatever the type (up to rounding).
inline Tensor random(Shape shape, DType dtype, uint64_t seed, double deviation = 1) {
  Tensor wide(shape, DType::f32), x(shape, dtype);
  ops::random_normal(seed, 0, 0, deviation, wide);
  ops::copy(wide, x);
  return x;
}

inline Tensor on_gpu(const Tensor& x) { return to(Device::cuda, x); }
inline Tensor back(const Tensor& x) { return to(Device::cpu, x); }

// A result to be: full of NaN, so that an element nobody writes is seen.
inline Tensor poisoned(Shape shape, DType dtype, Device device = Device::cuda) {
  Tensor x(shape, dtype, device);
  ops::fill(x, std::numeric_limits<double>::quiet_NaN());
  return x;
}

// |got - want| / |want| in the Frobenius norm; NaN where anything is NaN.
inline double relative_error(const Tensor& got, const Tensor& want) {
  std::vector<double> a = to_vector(back(got)), b = to_vector(back(want));
  double difference = 0, size = 0;
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); i++) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(size), 1e-30);
}

// What the house asks of every operation: relative errors of fp32 and bf16.
inline double tolerance(DType dtype) { return dtype == DType::bf16 ? 1e-2 : 1e-5; }

inline bool same_bits(const Tensor& a, const Tensor& b) {
  Tensor x = back(a), y = back(b);
  return x.bytes() == y.bytes() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

// make() returns a tensor on the GPU: the same bits every time. On the CPU its threads run in
// another order every time, so that a missing barrier shows.
template <class F>
void check_repeatable(const F& make) {
  Tensor first = make();
  for (unsigned order = 1; order < 4; order++) {
#ifdef MURMUR_CUDA_ON_CPU
    cuda_on_cpu::set_order(order);
#endif
    CHECK(same_bits(make(), first));
  }
#ifdef MURMUR_CUDA_ON_CPU
  cuda_on_cpu::set_order(0);
#endif
}

}  // namespace murmur
