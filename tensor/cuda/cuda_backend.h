// tensor/cuda/cuda_backend.h - an NVIDIA GPU behind tensor/backend.h; its kernels are for fp32 and bf16.
//
// One stream, no waiting: a call returns when its kernels are in the queue. No kernel adds with
// atomics and every sum has an order fixed by its sizes: the same call gives the same bits.
#pragma once

#include "tensor/backend.h"

namespace murmur::cuda {

class CudaBackend final : public Backend {
 public:
  // memory.cu
  void* allocate(size_t bytes) const override;
  void release(void* data, size_t bytes) const override;
  void copy(const Tensor& from, Tensor& to) const override;
  // stream.cpp
  std::function<double()> read_later(const Tensor& x) const override;
  void synchronize() const override;
  std::function<void()> capture(const std::function<void()>& work) const override;
  bool fast_bf16() const override { return true; }
};

}  // namespace murmur::cuda
