// tensor/cpu/memory.cpp - bytes from the system, filled and copied.
#include <sys/mman.h>  // madvise

#include <cstdlib>
#include <type_traits>

#include "tensor/backend.h"
#include "tensor/cpu/gemm.h"
#include "tensor/cpu/parallel.h"
#include "tensor/dispatch.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;

template <class From, class To>
void convert(const Tensor& from, Tensor& to) {
  Extent e = extent_of(from, to);
  for (int64_t r = 0; r < e.rows; r++) {
    const From* x = from.data<From>() + r * from.row_stride();
    To* y = to.data<To>() + r * to.row_stride();
    parallel_for(e.cols, grain_for(e.cols, 8), [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) {
        if constexpr (std::is_same_v<From, To>) {
          y[i] = x[i];
        } else if constexpr (std::is_same_v<To, bf16>) {
          y[i] = bf16(float(x[i]));
        } else {
          y[i] = To(x[i]);
        }
      }
    });
  }
}

template <class F>
void dispatch_all(DType dtype, const F& f) {
  if (dtype == DType::i32) return f(int32_t{});
  dispatch(dtype, f);
}

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
  void copy(const Tensor& from, Tensor& to) const override {
    dispatch_all(from.dtype(), [&](auto a) {
      dispatch_all(to.dtype(), [&](auto b) { convert<decltype(a), decltype(b)>(from, to); });
    });
  }
  // Everything is done when a call returns.
  void synchronize() const override {}
  std::function<double()> read_later(const Tensor& x) const override {
    return [value = item(x)] { return value; };
  }
  std::function<void()> capture(const std::function<void()>& work) const override { return work; }
  bool fast_bf16() const override { return &gemm_kernel() == &gemm_amx; }
};

}  // namespace

void fill(Tensor& x, double value) {
  Extent e = extent_of(x);
  dispatch_all(x.dtype(), [&](auto type) {
    using T = decltype(type);
    T v;
    if constexpr (std::is_same_v<T, bf16>) {
      v = bf16(float(value));
    } else {
      v = T(value);
    }
    for (int64_t r = 0; r < e.rows; r++) {
      T* y = x.data<T>() + r * x.row_stride();
      parallel_for(e.cols, grain_for(e.cols, sizeof(T)),
                   [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, v); });
    }
  });
}

}  // namespace murmur::cpu

const murmur::Backend& murmur::cpu_backend() {
  static const cpu::CpuBackend backend;
  return backend;
}
