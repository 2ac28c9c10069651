// tensor/kernel/elementwise.h - from a struct with a formula (tensor/ops/gelu.h) to the kernels of
// a row of ops.def. CMake makes a file for every row that includes this and says
// UNARY_KERNELS(gelu, Gelu).
#pragma once

#include "tensor/formula.h"
#include "tensor/kernel/launch.h"
#include "tensor/ops.h"

namespace murmur::MURMUR_DEVICE {

template <class F, class C>
struct Value {
  C constant;
  KERNEL void operator()(C x, C& y) const { y = value_of<F>(x, constant); }
};
template <class F, class C>
struct Slope {
  C constant;
  KERNEL void operator()(C x, C dy, C& dx) const { dx = dy * derivative_of<F>(x, constant); }
};

template <class F>
void unary_forward(double constant, const Tensor& x, Tensor& y) {
  Extent e = extent_of(x, y);
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_element(e, Value<F, C>{C(constant)}, in<T>(x, e), out<T>(y, e));
  });
}
template <class F>
void unary_backward(double constant, const Tensor& x, const Tensor& dy, Into dx) {
  Extent e = extent_of(x, dy, dx.tensor);
  dispatch_kernel(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_element(e, Slope<F, C>{C(constant)}, in<T>(x, e), in<T>(dy, e), accumulate<T>(dx, e));
  });
}

template <class F, class C>
struct BinaryValue {
  KERNEL void operator()(C a, C b, C& y) const { y = F::value(a, b); }
};
template <class F, class C>
struct LeftSlope {
  KERNEL void operator()(C a, C b, C dy, C& d) const { d = dy * F::left(a, b); }
};
template <class F, class C>
struct RightSlope {
  KERNEL void operator()(C a, C b, C dy, C& d) const { d = dy * F::right(a, b); }
};

// One long row where b needs no row of its own.
template <class... Y>
Extent extent_of_pair(const Tensor& a, const Tensor& b, const Y&... y) {
  if (b.numel() == 1) return extent_of(a, y...);
  return a.shape() == b.shape() ? extent_of(a, b, y...) : row_extent(a);
}
template <class F>
void binary_forward(const Tensor& a, const Tensor& b, Tensor& y) {
  Extent e = extent_of_pair(a, b, y);
  dispatch_kernel(a.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_element(e, BinaryValue<F, Compute<T>>{}, in<T>(a, e), broadcast<T>(b, e),
                     out<T>(y, e));
  });
}
template <class F>
void binary_backward(bool left, const Tensor& a, const Tensor& b, const Tensor& dy, Into d) {
  Extent e = extent_of_pair(a, b, dy, d.tensor);
  dispatch_kernel(a.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    auto run = [&](auto f) {
      for_each_element(e, f, in<T>(a, e), broadcast<T>(b, e), in<T>(dy, e), accumulate<T>(d, e));
    };
    left ? run(LeftSlope<F, C>{}) : run(RightSlope<F, C>{});
  });
}

#ifdef MURMUR_GPU_KERNELS

#define UNARY_KERNELS(name, F)                                               \
  namespace murmur::cuda::unary_kernels {                                    \
  extern const UnaryFunction::Kernels name;                                  \
  const UnaryFunction::Kernels name = {unary_forward<F>, unary_backward<F>}; \
  }
#define BINARY_KERNELS(name, F)                                                 \
  namespace murmur::cuda::binary_kernels {                                      \
  extern const BinaryFunction::Kernels name;                                    \
  const BinaryFunction::Kernels name = {binary_forward<F>, binary_backward<F>}; \
  }

#else

template <class F>
void value_row(DType type, double constant, int64_t n, const void* x, void* y) {
  dispatch(type, [&](auto t) {
    using T = decltype(t);
    using C = Compute<T>;
    In<T> from{{static_cast<T*>(const_cast<void*>(x)), 0}};
    Out<T> to{{static_cast<T*>(y), 0}};
    over_pieces(n, n, [=](int64_t, int64_t) { Team{n}.each(Value<F, C>{C(constant)}, from, to); });
  });
}
template <class F>
void slope_row(DType type, double constant, int64_t n, const void* x, void* d) {
  dispatch(type, [&](auto t) {
    using T = decltype(t);
    using C = Compute<T>;
    In<T> from{{static_cast<T*>(const_cast<void*>(x)), 0}}, slope{{static_cast<T*>(d), 0}};
    Out<T> to{{static_cast<T*>(d), 0}};
    over_pieces(n, n,
                [=](int64_t, int64_t) { Team{n}.each(Slope<F, C>{C(constant)}, from, slope, to); });
  });
}

template <class F>
constexpr bool kHasConstant = requires {
  F::kConstant;
};
template <class F>
constexpr double constant_of() {
  if constexpr (kHasConstant<F>) return F::kConstant;
  return 0;
}

#define UNARY_KERNELS(name, F)                                         \
  namespace murmur::unary {                                            \
  extern const Unary name;                                             \
  static constinit const UnaryFunction name##_function{                \
      #name,                                                           \
      kHasConstant<F>,                                                 \
      {cpu::unary_forward<F>, cpu::unary_backward<F>},                 \
      cpu::value_row<F>,                                               \
      cpu::slope_row<F>};                                              \
  constinit const Unary name{&name##_function, cpu::constant_of<F>()}; \
  }
#define BINARY_KERNELS(name, F)                                  \
  namespace murmur::binary {                                     \
  extern const Binary name;                                      \
  static constinit const BinaryFunction name##_function{         \
      #name, {cpu::binary_forward<F>, cpu::binary_backward<F>}}; \
  constinit const Binary name{&name##_function};                 \
  }

#endif

}  // namespace murmur::MURMUR_DEVICE
