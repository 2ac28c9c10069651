// tests/cuda_on_cpu/device.cpp - what the device says about itself, and launches.
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "block.h"
#include "cuda_on_cpu.h"
#include "queue.h"

namespace cuda_on_cpu {
namespace {

int initial_capability() {
  const char* text = std::getenv("MURMUR_CUDA_CAPABILITY");
  return text ? std::atoi(text) : 80;
}
std::atomic<int> capability = initial_capability();

constexpr size_t default_shared = 48 << 10;

// The most shared memory a block of this capability can ask for.
size_t shared_limit() {
  const int c = capability;
  return size_t(c == 90 || c == 100 || c == 103 ? 227 : c == 80 || c == 87 ? 163 : 99) << 10;
}

std::mutex mutex;
std::map<const void*, size_t> allowed_shared;  // by kernel, where cudaFuncSetAttribute said it

std::string name_of(const void* kernel) {
  Dl_info info;
  if (!dladdr(kernel, &info) || !info.dli_sname) return "";
  char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr);
  std::string name = readable ? readable : info.dli_sname;
  std::free(readable);
  return name;
}

}  // namespace

int set_capability(int value) { return capability.exchange(value); }

std::vector<Launch>& launch_log() {
  static std::vector<Launch> log;
  return log;
}
std::vector<Product>& product_log() {
  static std::vector<Product> log;
  return log;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> body) {
  const dim3 blocks = config.gridDim, threads = config.blockDim;
  if (!kernel) return remember(cudaErrorInvalidDeviceFunction);
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || threads.x == 0 || threads.y == 0 ||
      threads.z == 0 || blocks.x > 0x7fffffff || blocks.y > 65535 || blocks.z > 65535 ||
      threads.x > 1024 || threads.y > 1024 || threads.z > 64 ||
      threads.x * threads.y * threads.z > 1024) {
    return remember(cudaErrorInvalidConfiguration);
  }
  const size_t shared = config.dynamicSmemBytes;
  {
    std::lock_guard lock(mutex);
    auto it = allowed_shared.find(kernel);
    if (shared > (it == allowed_shared.end() ? default_shared : it->second)) {
      return remember(cudaErrorInvalidValue);
    }
  }
  for (unsigned i = 0; i < config.numAttrs; i++) {
    const cudaLaunchAttribute& a = config.attrs[i];
    if (a.id == cudaLaunchAttributeClusterDimension &&
        a.val.clusterDim.x * a.val.clusterDim.y * a.val.clusterDim.z != 1) {
      return remember(cudaErrorNotSupported);
    }
  }
  return enqueue(config.stream, [=, body = std::move(body)] {
    if (is_dry()) {
      std::lock_guard lock(mutex);
      launch_log().push_back({kernel, name_of(kernel), blocks, threads, shared});
    } else {
      run_kernel(blocks, threads, shared, body);
    }
  });
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
#define MURMUR_NAME(name) \
  case name:              \
    return #name;
    MURMUR_NAME(cudaSuccess)
    MURMUR_NAME(cudaErrorInvalidValue)
    MURMUR_NAME(cudaErrorMemoryAllocation)
    MURMUR_NAME(cudaErrorInitializationError)
    MURMUR_NAME(cudaErrorInvalidConfiguration)
    MURMUR_NAME(cudaErrorInvalidMemcpyDirection)
    MURMUR_NAME(cudaErrorInsufficientDriver)
    MURMUR_NAME(cudaErrorInvalidDeviceFunction)
    MURMUR_NAME(cudaErrorNoDevice)
    MURMUR_NAME(cudaErrorInvalidDevice)
    MURMUR_NAME(cudaErrorInvalidResourceHandle)
    MURMUR_NAME(cudaErrorIllegalState)
    MURMUR_NAME(cudaErrorNotReady)
    MURMUR_NAME(cudaErrorIllegalAddress)
    MURMUR_NAME(cudaErrorLaunchFailure)
    MURMUR_NAME(cudaErrorNotSupported)
    MURMUR_NAME(cudaErrorStreamCaptureUnsupported)
    MURMUR_NAME(cudaErrorStreamCaptureInvalidated)
    MURMUR_NAME(cudaErrorStreamCaptureUnmatched)
    MURMUR_NAME(cudaErrorStreamCaptureIsolation)
    MURMUR_NAME(cudaErrorCapturedEvent)
    MURMUR_NAME(cudaErrorUnknown)
#undef MURMUR_NAME
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    default:
      return cudaGetErrorName(status);
  }
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* facts, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  size_t free;
  *facts = {};
  std::strcpy(facts->name, "CUDA on CPU");
  cudaMemGetInfo(&free, &facts->totalGlobalMem);
  facts->sharedMemPerBlock = default_shared;
  facts->sharedMemPerBlockOptin = shared_limit();
  facts->sharedMemPerMultiprocessor = shared_limit() + 1024;
  facts->regsPerBlock = 65536;
  facts->warpSize = 32;
  facts->maxThreadsPerBlock = 1024;
  const int block[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
  std::copy_n(block, 3, facts->maxThreadsDim);
  std::copy_n(grid, 3, facts->maxGridSize);
  facts->major = capability / 10;
  facts->minor = capability % 10;
  facts->multiProcessorCount = 4;
  facts->maxThreadsPerMultiProcessor = 2048;
  facts->l2CacheSize = 4 << 20;
  facts->memoryBusWidth = 1024;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp facts;
  if (cudaGetDeviceProperties(&facts, device) != cudaSuccess) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = facts.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(facts.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = facts.warpSize;
      break;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
      *value = 1000000;  // kHz
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = facts.multiProcessorCount;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = facts.memoryBusWidth;
      break;
    case cudaDevAttrL2CacheSize:
      *value = facts.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = facts.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = facts.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = facts.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(facts.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(facts.sharedMemPerBlockOptin);
      break;
    default:
      return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (!kernel) return remember(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || size_t(value) > shared_limit()) return remember(cudaErrorInvalidValue);
  std::lock_guard lock(mutex);
  allowed_shared[kernel] = size_t(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* facts, const void* kernel) {
  std::lock_guard lock(mutex);
  auto it = allowed_shared.find(kernel);
  *facts = {};
  facts->maxThreadsPerBlock = 1024;
  facts->numRegs = 32;
  facts->ptxVersion = facts->binaryVersion = capability;
  facts->maxDynamicSharedSizeBytes = int(it == allowed_shared.end() ? default_shared : it->second);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          size_t shared) {
  *blocks = std::min(2048 / std::max(threads, 1), int((shared_limit() + 1024) / (shared + 1024)));
  return cudaSuccess;
}
