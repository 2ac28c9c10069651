// tests/cuda_on_cpu/cuda_on_cpu.h - what a test can ask of the emulation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "host_side.h"
#include "types.h"

namespace cuda_on_cpu {

// A fault of a kernel: a deadlock, a misaligned address, lanes that disagree. Comes out of the
// launch (or, in late mode, out of the call that waits for it).
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Each set_ returns what was set before.

// In what order threads and blocks run. 0: warps, lanes and blocks in order; else shuffled, and
// blocks backwards when odd. First value: the environment's MURMUR_CUDA_ORDER.
unsigned set_order(unsigned order);

// Late: work is only queued, and done when the host waits for its stream or event. A host that
// reads a result too early then sees it. First value: MURMUR_CUDA_LATE.
bool set_late(bool late);

// The stream goes no further until `ready` says so, as when a library's kernel waits for another
// process. Calls that ask say "not ready" meanwhile, calls that wait do.
void hold(cudaStream_t stream, std::function<bool()> ready);

// The compute capability that the device claims: 80, 90, ... First value: MURMUR_CUDA_CAPABILITY.
int set_capability(int capability);

// Dry: nothing is computed. Kernels and products are only written down, device memory is address
// space that nobody may touch, and what is copied from the device is zeros. Memory allocated while
// dry stays untouchable. First value: MURMUR_CUDA_DRY.
bool set_dry(bool dry);

// What was launched while dry, a replayed graph's work included.
struct Launch {
  const void* kernel;
  std::string name;  // empty where the linker does not tell (-rdynamic helps)
  dim3 grid, block;
  size_t shared;
};
struct Product {
  int64_t m, n, k, batch;  // of a column-major product, as cuBLAS sees it
  int a, b, c, d;          // cudaDataType
  int epilogue;            // cublasLtEpilogue_t
};
std::vector<Launch>& launch_log();
std::vector<Product>& product_log();

struct Memory {
  int64_t allocations = 0;  // calls of cudaMalloc that succeeded
  int64_t live = 0, live_bytes = 0, peak_bytes = 0;
};
Memory memory();

}  // namespace cuda_on_cpu
