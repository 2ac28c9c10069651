// tensor/cuda/runtime.h - the CUDA runtime as the engine uses it: one stream, every call checked,
// every launch counted.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "tensor/ops.h"

namespace murmur::cuda {

cudaStream_t stream();  // everything the engine does happens here, in order

// Throws a DeviceError that names the call and the reason.
void check_call(cudaError_t status, const char* call);

struct Counters {
  int64_t launches = 0;  // kernels, those of cuBLAS included
  int64_t waits = 0;     // times the host waited for the device
};
Counters& counters();

// How many multiprocessors the device has, and its compute capability (90 for 9.0).
struct DeviceFacts {
  int multiprocessors, capability;
  std::string name;
};
DeviceFacts device_facts();

// Whether kernels written for Hopper alone may run: where MURMUR_HOPPER=1 is set. Until a recorded
// run on such a GPU stands in docs/results/, the general kernels are the default there too.
bool hopper_wanted();

// kernel<<<grid, block, shared>>>(args...) on the engine's stream.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > 48 * 1024) {
    check_call(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)),
               "cudaFuncSetAttribute");
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream();
  check_call(cudaLaunchKernelEx(&config, kernel, P(args)...), "launch");
  counters().launches++;
}

}  // namespace murmur::cuda
