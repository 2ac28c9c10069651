// tests/cuda/emulation_test.cpp - the emulation of CUDA itself: that it finds the faults it is for,
// and that the runtime does what CUDA's documentation says.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tensor/cuda/instructions.h"
#include "tests/cuda/on_device.h"

namespace murmur {
namespace {

using namespace cuda;

struct Stream {
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(handle); }
  operator cudaStream_t() const { return handle; }
  cudaStream_t handle;
};

template <class... P, class... A>
cudaError_t launch_on(cudaStream_t stream, void (*kernel)(P...), dim3 grid, dim3 block,
                      size_t shared, const A&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, P(args)...);
}
template <class... P, class... A>
cudaError_t run(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, const A&... args) {
  return launch_on(nullptr, kernel, grid, block, shared, args...);
}

// What the launch complains about; empty when it does not.
template <class... A>
std::string complaint(const A&... args) {
  try {
    cudaError_t status = run(args...);
    CHECK(status == cudaSuccess);
  } catch (const cuda_on_cpu::Error& error) {
    return error.what();
  }
  return "";
}
bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

struct InOrder {
  explicit InOrder(unsigned order) : before(cuda_on_cpu::set_order(order)) {}
  ~InOrder() { cuda_on_cpu::set_order(before); }
  unsigned before;
};

// threads and barriers ----------------------------------------------------------------------------

__global__ void rotate(int* y, bool with_barrier) {
  MURMUR_SHARED(shared);
  auto* s = reinterpret_cast<int*>(shared);
  s[threadIdx.x] = int(threadIdx.x);
  if (with_barrier) __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
}

TEST_CASE("a barrier left out gives wrong numbers that depend on the order") {
  const unsigned n = 96;
  OnDevice<int> y(3 * n);
  auto result = [&](bool with_barrier, unsigned order) {
    InOrder in_order(order);
    REQUIRE(run(rotate, 3, n, n * 4, y, with_barrier) == cudaSuccess);
    return y.fetch();
  };
  std::vector<int> right(3 * n);
  for (unsigned i = 0; i < 3 * n; i++) right[i] = int((i + 1) % n);
  for (unsigned order = 0; order < 6; order++) {
    CHECK(result(true, order) == right);
    CHECK(result(false, order) != right);
    CHECK(result(false, order) != result(false, order + 1));
    CHECK(result(false, order) == result(false, order));
  }
}

__global__ void indices(uint3* y) {
  unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] = {threadIdx.x * 100 + blockIdx.x,
                                                              threadIdx.y * 100 + blockIdx.y,
                                                              threadIdx.z * 100 + blockIdx.z};
}

TEST_CASE("every thread of every block runs once, in three dimensions") {
  const dim3 grid(2, 3, 2), block(5, 4, 3);
  for (unsigned order : {0u, 1u, 2u}) {
    InOrder in_order(order);
    OnDevice<uint3> y(12 * 60);
    REQUIRE(run(indices, grid, block, 0, y) == cudaSuccess);
    std::vector<uint3> got = y.fetch();
    bool right = true;
    for (unsigned i = 0; i < got.size(); i++) {
      unsigned t = i % 60, b = i / 60;
      right &= got[i].x == t % 5 * 100 + b % 2 && got[i].y == t / 5 % 4 * 100 + b / 2 % 3 &&
               got[i].z == t / 20 * 100 + b / 6;
    }
    CHECK(right);
  }
}

__global__ void sum_all(int* y, int rounds) {
  __shared__ int part[32];
  int v = int(threadIdx.x);
  for (int i = 0; i < rounds; i++) {
    int sum = v;
    for (int m = 16; m; m /= 2) sum += __shfl_xor_sync(~0u, sum, m);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) sum += part[w];
    __syncthreads();
    v = v + sum % 7;
  }
  y[threadIdx.x] = v;
}

TEST_CASE("a thousand threads meet a hundred times, on several threads of the host at once") {
  std::vector<int> want;
  auto result = [] {
    OnDevice<int> y(1024);
    REQUIRE(run(sum_all, 1, 1024, 0, y, 100) == cudaSuccess);
    return y.fetch();
  };
  want = result();
  std::vector<std::vector<int>> got(3);
  std::vector<std::thread> hosts;
  for (auto& g : got) hosts.emplace_back([&] { g = result(); });
  for (auto& host : hosts) host.join();
  for (auto& g : got) CHECK(g == want);
}

__global__ void some_leave(int* y) {
  if (threadIdx.x >= 40) return;
  y[threadIdx.x] = __syncthreads_count(1) + (threadIdx.x >= 32 ? __popc(__ballot_sync(~0u, 1)) : 0);
}

TEST_CASE("who has ended is not waited for") {
  OnDevice<int> y(64);
  for (unsigned order = 0; order < 4; order++) {
    InOrder in_order(order);
    REQUIRE(run(some_leave, 1, 64, 0, y) == cudaSuccess);
    CHECK(y.fetch()[0] == 40);
    CHECK(y.fetch()[39] == 48);
  }
}

__global__ void two_barriers(int) {
  if (threadIdx.x < 32) {
    cuda_on_cpu::barrier(1, 64);
  } else {
    cuda_on_cpu::barrier(2, 64);
  }
}
__global__ void barrier_and_warp(int) {
  if (threadIdx.x % 32 < 16) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}
__global__ void different_instructions(int v) {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else {
    __shfl_sync(~0u, v, 0);
  }
}
__global__ void outside_the_mask(int v) {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, v, 16);
}
__global__ void not_in_its_mask(int) { __syncwarp(0xffffu); }

TEST_CASE("threads that wait for each other in vain are reported, and the next launch works") {
  std::string text = complaint(two_barriers, 1, 64, 0, 0);
  CHECK_MESSAGE(contains(text, "deadlock in block (0, 0, 0)"), text);
  CHECK_MESSAGE(contains(text, "32 of 64 threads are at barrier 2"), text);
  text = complaint(barrier_and_warp, 2, 64, 0, 0);
  CHECK_MESSAGE(contains(text, "warp 1 waits for lanes, 0000ffff of ffffffff came"), text);
  CHECK(contains(complaint(different_instructions, 1, 32, 0, 0), "different instructions"));
  CHECK(contains(complaint(outside_the_mask, 1, 32, 0, 0), "from lane 16"));
  CHECK(contains(complaint(not_in_its_mask, 1, 32, 0, 0), "not in the mask"));
  OnDevice<int> y(64);
  REQUIRE(run(rotate, 1, 64, 256, y, true) == cudaSuccess);
  CHECK(y.fetch()[63] == 0);
}

__global__ void hand_over(int* y, int rounds) {  // one thread produces, one consumes
  __shared__ int full, value;
  if (threadIdx.x == 0) full = 0;
  __syncthreads();
  for (int i = 0; i < rounds; i++) {
    if (threadIdx.x == 0) {
      cuda_on_cpu::wait_until([] { return full == 0; });
      value = i * i, full = 1;
    } else if (threadIdx.x == 33) {
      cuda_on_cpu::wait_until([] { return full == 1; });
      y[i] = value, full = 0;
    }
  }
  if (threadIdx.x < 32) {
    cuda_on_cpu::barrier_arrive(3, 64);
  } else {
    cuda_on_cpu::barrier(3, 64);
  }
}

TEST_CASE("conditions can be waited for, and barriers of some threads met") {
  for (unsigned order = 0; order < 4; order++) {
    InOrder in_order(order);
    OnDevice<int> y(20);
    REQUIRE(run(hand_over, 1, 64, 0, y, 20) == cudaSuccess);
    for (int i = 0; i < 20; i++) CHECK(y.fetch()[size_t(i)] == i * i);
  }
}

// shared memory and copies ------------------------------------------------------------------------

__global__ void read_shared(float* y, int at) {
  MURMUR_SHARED(shared);
  y[0] = reinterpret_cast<float*>(shared)[at];
}
[[maybe_unused]] __global__ void write_shared(int at) {
  MURMUR_SHARED(shared);
  const_cast<volatile unsigned char*>(shared)[at] = 1;
}

TEST_CASE("memory that nobody has written is NaN") {
  OnDevice<float> y(1);
  CHECK(std::isnan(y.fetch()[0]));
  REQUIRE(run(read_shared, 1, 1, 64, y, 15) == cudaSuccess);
  CHECK(std::isnan(y.fetch()[0]));
}

#ifndef __SANITIZE_ADDRESS__  // which stops the program there, and says where
TEST_CASE("writing behind the dynamic shared memory is reported") {
  CHECK(complaint(write_shared, 1, 1, 100, 99) == "");
  CHECK(contains(complaint(write_shared, 1, 1, 100, 100), "behind the 100 bytes"));
}
#endif

__global__ void nothing(int) {}
__global__ void nothing_else(int) {}

TEST_CASE("a launch beyond the limits is refused as CUDA refuses it") {
  auto status = [](dim3 grid, dim3 block, size_t shared) {
    return run(nothing, grid, block, shared, 0);
  };
  CHECK(status(1, 1024, 0) == cudaSuccess);
  CHECK(status(1, 1025, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, {32, 32, 2}, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, {1, 1, 65}, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(0, 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(status({1, 65535}, 1, 0) == cudaSuccess);
  CHECK(status({1, 65536}, 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(status({1, 1, 65536}, 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaSuccess);

  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  const int capability = cuda_on_cpu::set_capability(80);
  CHECK(status(1, 1, 48 * 1024) == cudaSuccess);
  CHECK(status(1, 1, 48 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(nothing, attribute, 100 * 1024) == cudaSuccess);
  CHECK(status(1, 1, 100 * 1024) == cudaSuccess);
  CHECK(status(1, 1, 100 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(run(nothing_else, 1, 1, 100 * 1024, 0) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(nothing, attribute, 164 * 1024) == cudaErrorInvalidValue);
  cuda_on_cpu::set_capability(90);
  CHECK(cudaFuncSetAttribute(nothing, attribute, 227 * 1024) == cudaSuccess);
  CHECK(status(1, 1, 227 * 1024) == cudaSuccess);
  CHECK(cudaFuncSetAttribute(nothing, attribute, 227 * 1024 + 1) == cudaErrorInvalidValue);
  cuda_on_cpu::set_capability(capability);
  cudaGetLastError();
}

__global__ void early_and_late(const uint32_t* x, uint32_t* y) {
  MURMUR_SHARED(shared);
  auto* s = reinterpret_cast<uint32_t*>(shared);
  copy_async(s, x, true);
  copy_async_commit();
  copy_async(s + 4, x + 4, true);
  copy_async_commit();
  y[0] = s[0];
  copy_async_wait<1>();
  y[1] = s[0], y[2] = s[4];
  copy_async(s + 8, x + 8, true);  // in no group: no wait covers it
  copy_async_wait<0>();
  y[3] = s[4], y[4] = s[8];
}
__global__ void misaligned_copy(const uint32_t* x) {
  MURMUR_SHARED(shared);
  copy_async(shared + 8, x, true);
}
__global__ void misaligned_matrices(int) {
  MURMUR_SHARED(shared);
  uint32_t r[4];
  load_matrices(r, shared + 18 * threadIdx.x);
}
__global__ void half_a_warp(float* y) {
  float d[4] = {};
  uint32_t a[4] = {};
  mma(d, a, 0, 0);
  y[0] = d[0];
}

TEST_CASE("bytes of copy_async arrive at the wait that covers them, not before") {
  OnDevice<uint32_t> x(std::vector<uint32_t>{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}), y(5);
  REQUIRE(run(early_and_late, 1, 1, 48, x, y) == cudaSuccess);
  CHECK(y.fetch() == std::vector<uint32_t>{~0u, 1, ~0u, 2, ~0u});
}

TEST_CASE("misaligned addresses and incomplete warps are reported") {
  OnDevice<uint32_t> x(8);
  OnDevice<float> y(1);
  CHECK(contains(complaint(misaligned_copy, 1, 1, 64, x), "cp.async"));
  CHECK(contains(complaint(misaligned_matrices, 1, 32, 1024, 0), "ldmatrix"));
  CHECK(contains(complaint(half_a_warp, 1, 16, 0, y), "mma needs all 32 lanes"));
}

// memory, streams, graphs -------------------------------------------------------------------------

TEST_CASE("device memory is counted, and copies that cannot be are refused") {
  cuda_on_cpu::Memory before = cuda_on_cpu::memory();
  std::vector<int> host(10, 7);
  {
    OnDevice<int> x(10);
    CHECK(cuda_on_cpu::memory().live == before.live + 1);
    CHECK(cuda_on_cpu::memory().live_bytes == before.live_bytes + 40);
    CHECK(cudaMemcpy(x, host.data(), 44, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x, host.data(), 40, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x + 5, x + 6, 20, cudaMemcpyDefault) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x, host.data(), 40, cudaMemcpyDefault) == cudaSuccess);
    CHECK(cudaMemset(x + 1, 0, 4) == cudaSuccess);
    CHECK(cudaMemset(host.data(), 0, 4) == cudaErrorInvalidValue);
    CHECK(x.fetch()[0] == 7);
    CHECK(x.fetch()[1] == 0);
    int pairs[2][3] = {};
    CHECK(cudaMemcpy2DAsync(pairs, 12, x, 20, 8, 2, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(pairs[0][1] == 0);
    CHECK(pairs[1][0] == 7);
    CHECK(pairs[1][2] == 0);
  }
  CHECK(cuda_on_cpu::memory().live == before.live);
  void* p = nullptr;
  CHECK(cudaMalloc(&p, size_t(1) << 50) == cudaErrorMemoryAllocation);
  CHECK(p == nullptr);
  CHECK(cudaFree(host.data()) == cudaErrorInvalidValue);
  cudaGetLastError();
}

__global__ void add(int* x, int value) { x[threadIdx.x] += value; }

TEST_CASE("a captured graph is done when it is launched, as often as it is launched") {
  Stream stream, other;
  OnDevice<int> x(std::vector<int>{1, 2, 3, 4});
  int* host;
  REQUIRE(cudaMallocHost(&host, 16) == cudaSuccess);
  cudaEvent_t fork, join;
  cudaEventCreateWithFlags(&fork, cudaEventDisableTiming);
  cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
  cudaStreamCaptureStatus status;

  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  int value = 10;
  CHECK(launch_on(stream, add, 1, 4, 0, x, value) == cudaSuccess);
  value = 99;
  CHECK(cudaEventRecord(fork, stream) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(other, fork) == cudaSuccess);
  CHECK(cudaStreamIsCapturing(other, &status) == cudaSuccess);
  CHECK(status == cudaStreamCaptureStatusActive);
  CHECK(cudaMemsetAsync(x + 3, 0, 4, other) == cudaSuccess);
  CHECK(cudaEventRecord(join, other) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(stream, join) == cudaSuccess);
  CHECK(cudaMemcpyAsync(host, x, 16, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  cudaGraph_t graph;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(x.fetch() == std::vector<int>{1, 2, 3, 4});
  size_t nodes;
  CHECK(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
  CHECK(nodes == 3);

  cudaGraphExec_t exec;
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 0; i < 2; i++) CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(std::vector<int>(host, host + 4) == std::vector<int>{21, 22, 23, 0});
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  cudaFreeHost(host);
  cudaEventDestroy(fork);
  cudaEventDestroy(join);
}

TEST_CASE("what a capture forbids fails, and the capture with it") {
  Stream stream;
  OnDevice<int> x(4);
  int host[4];
  void* p = nullptr;
  cudaGraph_t graph;
  using Call = std::function<cudaError_t()>;
  for (const Call& call : {Call([&] { return cudaStreamSynchronize(stream); }),
                           Call([&] { return cudaDeviceSynchronize(); }),
                           Call([&] { return cudaMemcpy(host, x, 16, cudaMemcpyDeviceToHost); }),
                           Call([&] { return cudaMalloc(&p, 16); })}) {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK(call() == cudaErrorStreamCaptureUnsupported);
    CHECK(launch_on(stream, add, 1, 4, 0, x, 1) == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
  }
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
  CHECK(cudaMalloc(&p, 16) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) != cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("a stream that is held goes on when it may, and whoever asks is told so") {
  for (bool late : {false, true}) {
    const bool before = cuda_on_cpu::set_late(late);
    Stream one, other;
    OnDevice<int> x(std::vector<int>{1});
    bool ready = false;
    cudaEvent_t event;
    cudaEventCreate(&event);
    cuda_on_cpu::hold(one, [&] { return ready; });
    CHECK(launch_on(one, add, 1, 1, 0, x, 10) == cudaSuccess);
    CHECK(cudaEventRecord(event, one) == cudaSuccess);
    for (int i = 0; i < 3; i++) {
      CHECK(cudaEventQuery(event) == cudaErrorNotReady);
      CHECK(cudaStreamQuery(one) == cudaErrorNotReady);
    }
    CHECK(cudaStreamSynchronize(other) == cudaSuccess);
    ready = true;
    CHECK(cudaEventQuery(event) == cudaErrorNotReady);
    CHECK(cudaEventQuery(event) == cudaSuccess);
    CHECK(x.fetch()[0] == 11);
    cudaEventDestroy(event);
    cuda_on_cpu::set_late(before);
  }
}

TEST_CASE("in late mode nothing is done before the host waits for it") {
  Stream stream;
  OnDevice<int> x(std::vector<int>{0});
  int *pinned, pageable = 5;
  REQUIRE(cudaMallocHost(&pinned, 4) == cudaSuccess);
  cudaEvent_t event;
  cudaEventCreate(&event);
  const bool late = cuda_on_cpu::set_late(true);
  CHECK(cudaMemcpyAsync(x, &pageable, 4, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  pageable = 6;  // was read by then
  CHECK(launch_on(stream, add, 1, 1, 0, x, 10) == cudaSuccess);
  CHECK(cudaMemcpyAsync(pinned, x, 4, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  CHECK(cudaEventRecord(event, stream) == cudaSuccess);
  CHECK(launch_on(stream, add, 1, 1, 0, x, 10) == cudaSuccess);
  CHECK(*pinned == -1);
  CHECK(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(*pinned == 15);
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  CHECK(x.fetch()[0] == 25);

  *pinned = 1;
  CHECK(cudaMemcpyAsync(x, pinned, 4, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  *pinned = 2;  // too early
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  cuda_on_cpu::set_late(late);
  CHECK(x.fetch()[0] == 2);
  cudaEventDestroy(event);
  cudaFreeHost(pinned);
}

// dry mode ----------------------------------------------------------------------------------------

TEST_CASE("in dry mode launches are written down and nothing is touched") {
  auto& launches = cuda_on_cpu::launch_log();
  launches.clear();
  const int64_t live = cuda_on_cpu::memory().live;
  Stream stream;
  cuda_on_cpu::set_dry(true);
  {
    OnDevice<int> huge(size_t(10) << 30);
    CHECK(launch_on(stream, add, {3, 2}, 64, 0, huge, 1) == cudaSuccess);
    int host[2] = {5, 5};
    CHECK(cudaMemcpyAsync(huge, host, 8, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    CHECK(cudaMemsetAsync(huge, 1, size_t(30) << 30, stream) == cudaSuccess);
    CHECK(cudaMemcpyAsync(host, huge, 8, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(host[1] == 0);
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
    CHECK(launch_on(stream, rotate, 7, 32, 128, huge, true) == cudaSuccess);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    for (int i = 0; i < 2; i++) CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
    cudaGraphDestroy(graph);
    cudaGraphExecDestroy(exec);
  }
  cuda_on_cpu::set_dry(false);

  REQUIRE(launches.size() == 3);
  CHECK(launches[0].kernel == reinterpret_cast<const void*>(add));
  CHECK(launches[0].grid.y == 2);
  CHECK(launches[2].grid.x == 7);
  CHECK(launches[2].shared == 128);
  CHECK(cuda_on_cpu::memory().live == live);
}

}  // namespace
}  // namespace murmur
