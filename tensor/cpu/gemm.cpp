// tensor/cpu/gemm.cpp - which of the compiled kernels this processor runs.
#include "tensor/cpu/gemm.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/nearest.h"

namespace murmur {
namespace {

// Linux lends the tile registers to those who ask.
bool has_amx() {
  unsigned a, b, c, d;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID leaf 7, EDX
  constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) && (d & kAmxTile) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const GemmKernel& best_kernel() {
  const char* wanted = std::getenv("MURMUR_CPU");
  if (wanted && *wanted) {
    std::vector<GemmKernel> known;
    for (const GemmKernel* kernel : kGemmKernels) known.push_back(*kernel);
    size_t at = size_t(&find_named("MURMUR_CPU", known, wanted) - known.data());
    if (!runs_here(*kGemmKernels[at]))
      throw InputError("MURMUR_CPU: this processor has no " + std::string(wanted));
    return *kGemmKernels[at];
  }
  for (size_t i = std::size(kGemmKernels); i-- > 0;) {
    if (runs_here(*kGemmKernels[i])) return *kGemmKernels[i];
  }
  throw InputError("this processor has no AVX2, which Murmur needs");
}

}  // namespace

bool runs_here(const GemmKernel& kernel) {
  __builtin_cpu_init();  // for those who ask before main()
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
                    avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                             __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl"),
                    bf16 = avx512 && __builtin_cpu_supports("avx512bf16"), amx = bf16 && has_amx();
  return &kernel == &gemm_avx2     ? avx2
         : &kernel == &gemm_avx512 ? avx512
         : &kernel == &gemm_amx    ? amx
                                   : bf16;
}

const GemmKernel*& forced_gemm_kernel() {
  static const GemmKernel* forced = nullptr;
  return forced;
}

const GemmKernel& gemm_kernel() {
  static const GemmKernel& best = best_kernel();
  return forced_gemm_kernel() ? *forced_gemm_kernel() : best;
}

void run(const GemmProduct& product, const GemmBlock& block) {
  // A thread's own, as large as its largest block; memory_stats() counts tensors.
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  static thread_local std::unique_ptr<float, Free> scratch;
  static thread_local int64_t size = 0;
  const int64_t wanted = (product.scratch_size(block) + 15) / 16 * 16;  // of 64 bytes
  if (wanted > size) {
    size = 0;
    scratch.reset(static_cast<float*>(std::aligned_alloc(64, size_t(wanted) * sizeof(float))));
    check(scratch != nullptr, "no memory for a product's scratch");
    size = wanted;
  }
  product.multiply(block, scratch.get());
}

}  // namespace murmur
