// tensor/cuda/hopper.cu - tile maps, and the check before a Hopper kernel's first use.
#include <cmath>
#include <cstdio>
#include <mutex>
#include <vector>

#include "tensor/cuda/hopper.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

TileMap tile_map(const bf16* data, int64_t count, int64_t rows, int64_t columns, int64_t row_stride,
                 int box_rows) {
  // Asked for at run time, so that the program links and starts without the driver.
  static auto* encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    check_call(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found),
               "cudaGetDriverEntryPointByVersion");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  const cuuint64_t extent[] = {cuuint64_t(columns), cuuint64_t(rows), cuuint64_t(count)};
  const cuuint64_t stride[] = {cuuint64_t(2 * row_stride), cuuint64_t(2 * row_stride * rows)};
  const cuuint32_t box[] = {kPanel, cuuint32_t(box_rows), 1}, every[] = {1, 1, 1};
  TileMap map;
  check(encode && encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(data), extent,
                         stride, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                         CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS,
        [] { return "cuTensorMapEncodeTiled failed"; });
  return map;
}

bool first_use(const char* name, int& verdict, const std::function<double()>& error) {
  int major = 0, minor = 0;
  check_call(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "attribute");
  check_call(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "attribute");
  if (major != 9 || minor != 0) return false;
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  if (verdict == 0) {
    cudaStreamCaptureStatus capturing;
    check_call(cudaStreamIsCapturing(stream(), &capturing), "cudaStreamIsCapturing");
    if (capturing != cudaStreamCaptureStatusNone) return false;
    double found = error();
    verdict = found < 1e-2 ? 1 : -1;  // NaN is not below anything
    if (verdict < 0) {
      std::fprintf(
          stderr,
          "murmur: the Hopper kernel for %s is wrong on this %s (relative error %.1e): the "
          "general one is used\n",
          name, device_facts().name.c_str(), found);
    }
  }
  return verdict > 0;
}

Tensor sample(Shape shape, uint64_t seed) {
  Tensor x(shape, DType::bf16, Device::cuda);
  ops::random_normal(seed, 0, 0, 1, x);
  return x;
}

double difference(const Tensor& got, const Tensor& want) {
  std::vector<double> a = to_vector(got), b = to_vector(want);
  double error = 0, size = 0;
  for (size_t i = 0; i < b.size(); i++) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(error / size);
}

}  // namespace murmur::cuda
