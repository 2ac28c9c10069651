// tensor/cpu/memory.cpp - bytes from the system.
#include <sys/mman.h>  // madvise

#include <cstdlib>

#include "tensor/backend.h"
#include "tensor/cpu/gemm.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;

class CpuBackend final : public Backend {
 public:
  // Large blocks ask for huge pages: fewer address translations, and a first touch that is 512
  // times rarer.
  void* allocate(size_t bytes) const override {
    bool large = bytes >= 2 * kHugePage;
    size_t alignment = large ? kHugePage : 64;
    size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, size);
    if (data && large) madvise(data, size, MADV_HUGEPAGE);
    return data;
  }
  void release(void* data, size_t) const override { std::free(data); }
  void copy(const Tensor& from, Tensor& to) const override { convert(from, to); }
  // Everything is done when a call returns.
  void synchronize() const override {}
  std::function<double()> read_later(const Tensor& x) const override {
    return [value = item(x)] { return value; };
  }
  std::function<void()> capture(const std::function<void()>& work) const override { return work; }
  bool fast_bf16() const override { return &gemm_kernel() == &gemm_amx; }
};

}  // namespace

}  // namespace murmur::cpu

const murmur::Backend& murmur::cpu_backend() {
  static const cpu::CpuBackend backend;
  return backend;
}
