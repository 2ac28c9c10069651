// tensor/cuda/runtime.cpp - the stream, the messages and the counters of runtime.h.
#include "tensor/cuda/runtime.h"

#include <cstdlib>

namespace murmur::cuda {
void check_call(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(call) + ": " + cudaGetErrorString(status));
}

cudaStream_t stream() {
  static cudaStream_t one = [] {
    cudaStream_t s;
    check_call(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreate");
    return s;
  }();
  return one;
}

Counters& counters() {
  static Counters all;
  return all;
}

DeviceFacts device_facts() {
  int device = 0;
  check_call(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp p;
  check_call(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
  return {p.multiProcessorCount, p.major * 10 + p.minor, p.name};
}

bool hopper_wanted() {
  static const bool wanted = [] {
    const char* set = std::getenv("MURMUR_HOPPER");
    return set && std::string(set) == "1";
  }();
  return wanted;
}

}  // namespace murmur::cuda
