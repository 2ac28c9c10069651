// tensor/cuda/plans.h - which of cuBLASLt's kernels runs which product: measured once on a machine,
// then read from a file, so that every later run takes the same one and gives the same bits.
//
// The file is $MURMUR_CUDA_PLANS, or ~/.cache/murmur/products-GPU-VERSION.txt; an empty variable
// means none. One product a line: its key, the milliseconds measured, the library's 64 bytes.
#pragma once

#include <cublasLt.h>

#include <functional>
#include <map>
#include <string>

namespace murmur::cuda {

cublasLtHandle_t library();
// Throws an Error that names what is being done, the call, and the reason.
void check_library(cublasStatus_t status, const char* call);

struct Plan {
  cublasLtMatmulAlgo_t algorithm;
  float ms;
};

class Plans {
 public:
  explicit Plans(std::string path);  // reads the file; a line it cannot read is measured again
  const Plan* find(const std::string& key) const;
  void keep(const std::string& key, const Plan& plan);  // and writes the file
  const std::map<std::string, Plan>& all() const { return plans_; }

 private:
  std::string path_;
  std::map<std::string, Plan> plans_;
};
Plans& plans();

// Milliseconds of `work` on the engine's stream: the fastest of a few runs after a first one.
float time_on_stream(const std::function<void()>& work);

}  // namespace murmur::cuda
