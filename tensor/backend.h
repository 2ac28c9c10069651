// tensor/backend.h - a device besides its kernels: memory, copies, waiting.
#pragma once

#include <cstddef>
#include <functional>

#include "tensor/tensor.h"

namespace murmur {

class Backend {
 public:
  virtual ~Backend() = default;

  virtual void* allocate(size_t bytes) const = 0;  // nullptr when there is none
  virtual void release(void* data, size_t bytes) const = 0;
  // Converts the element type; one side at least lies here. Shapes are the same.
  virtual void copy(const Tensor& from, Tensor& to) const = 0;
  // The one number of x, for a caller who asks later: calling the result waits until it is there.
  virtual std::function<double()> read_later(const Tensor& x) const = 0;
  virtual void synchronize() const = 0;  // waits until everything asked for is done
  // What `work` asks of this device, as one thing that can be done again and again: on a GPU one
  // launch instead of hundreds. `work` must have run once before, must keep its tensors, and must
  // not read a number back. Calling capture() does not do the work; calling the result does.
  virtual std::function<void()> capture(const std::function<void()>& work) const = 0;
  virtual bool fast_bf16() const = 0;  // are products of bf16 much faster than those of fp32?
};

// Throws an InputError where Murmur was built without CUDA or finds no GPU.
const Backend& backend(Device device);
const Backend& cpu_backend();
const Backend* cuda_backend();  // nullptr where there is none
// The stream on which all of it happens, in order, for a library that works on the same GPU
// (dist/nccl.cpp). It belongs to the device that is current at the first call.
void* cuda_stream();

}  // namespace murmur
