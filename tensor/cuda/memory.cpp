// tensor/cuda/memory.cpp - bytes on the GPU, and on their way between it and the host.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

// Page-locked host memory in slots: what is to travel to the device waits here, so that the caller
// may go on and change its own copy at once.
class Staging {
 public:
  void send(const void* from, void* to, size_t bytes) {
    for (size_t at = 0; at < bytes; at += kSlot) {
      size_t part = std::min(kSlot, bytes - at);
      Slot& slot = slots_[next_++ % kSlots];
      if (!slot.data) {
        check_call(cudaMallocHost(&slot.data, kSlot), "cudaMallocHost");
        check_call(cudaEventCreateWithFlags(&slot.sent, cudaEventDisableTiming), "cudaEventCreate");
      } else {
        check_call(cudaEventSynchronize(slot.sent), "cudaEventSynchronize");
      }
      std::memcpy(slot.data, static_cast<const char*>(from) + at, part);
      check_call(cudaMemcpyAsync(static_cast<char*>(to) + at, slot.data, part,
                                 cudaMemcpyHostToDevice, stream()),
                 "cudaMemcpyAsync");
      check_call(cudaEventRecord(slot.sent, stream()), "cudaEventRecord");
    }
  }

 private:
  static constexpr size_t kSlot = size_t(1) << 20;
  static constexpr int kSlots = 16;
  struct Slot {
    void* data = nullptr;
    cudaEvent_t sent = {};
  };
  Slot slots_[kSlots];
  unsigned next_ = 0;
};

Staging& staging() {
  static Staging* one = new Staging;
  return *one;
}

// Rows of one type between host and device; both contiguous.
void send(const Tensor& from, Tensor& to) { staging().send(from.raw(), to.raw(), from.bytes()); }

void receive(const Tensor& from, Tensor& to) {
  check_call(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToHost, stream()),
             "cudaMemcpyAsync");
  check_call(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  counters().waits++;
}

void copy_on_device(const Tensor& from, Tensor& to) {
  if (from.dtype() == to.dtype() && from.contiguous() && to.contiguous()) {
    check_call(
        cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToDevice, stream()),
        "cudaMemcpyAsync");
    return;
  }
  convert(from, to);
}

void* CudaBackend::allocate(size_t bytes) const {
  void* data = nullptr;
  cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the next call shall not report it again
    return nullptr;
  }
  check_call(status, "cudaMalloc");
  return data;
}

void CudaBackend::release(void* data, size_t) const {
  check_call(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  check_call(cudaFree(data), "cudaFree");
}

// Between devices the bytes travel as they are, and the CPU converts.
void CudaBackend::copy(const Tensor& from, Tensor& to) const {
  if (from.numel() == 0) return;
  bool here = from.device() == Device::cuda, there = to.device() == Device::cuda;
  if (here && there) return copy_on_device(from, to);
  auto packed = [](const Tensor& like, DType dtype, Device device) {
    return Tensor(like.shape(), dtype, device);
  };
  if (there) {
    bool ready = from.dtype() == to.dtype() && from.contiguous();
    Tensor host = ready ? from : packed(from, to.dtype(), Device::cpu);
    if (!ready) cpu_backend().copy(from, host);
    Tensor target = to.contiguous() ? to : packed(to, to.dtype(), Device::cuda);
    send(host, target);
    if (!to.contiguous()) copy_on_device(target, to);
  } else {
    Tensor source = from.contiguous() ? from : packed(from, from.dtype(), Device::cuda);
    if (!from.contiguous()) copy_on_device(from, source);
    bool ready = from.dtype() == to.dtype() && to.contiguous();
    Tensor host = ready ? to : packed(from, from.dtype(), Device::cpu);
    receive(source, host);
    if (!ready) cpu_backend().copy(host, to);
  }
}

}  // namespace murmur::cuda
