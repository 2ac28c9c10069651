// tensor/cpu/map.cpp - y = f(x) for every UNARY row of ops.def, and the few maps with a constant.
#include "elementwise_ops.h"  // made by CMake: includes every tensor/ops/*.h
#include "tensor/cpu/cpu_engine.h"
#include "tensor/cpu/dispatch.h"
#include "tensor/cpu/map_row.h"
#include "tensor/cpu/parallel.h"

namespace murmur {
namespace {

// Calls f(i0, i1, xs...) per contiguous run; every x is the pointer of its tensor at that row.
template <class T, class F, class... Tensors>
void over_runs(const F& f, const Tensors&... tensors) {
  Extent e = extent_of(tensors...);
  int64_t bytes = int64_t(sizeof(T) * sizeof...(tensors));
  if (e.rows == 1) {
    parallel_for(e.cols, grain_for(e.cols, bytes), [&](int64_t begin, int64_t end) {
      f(end - begin, tensors.template data<T>() + begin...);
    });
  } else {
    parallel_for(e.rows, grain_for(e.rows, bytes * e.cols), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++)
        f(e.cols, tensors.template data<T>() + r * tensors.row_stride()...);
    });
  }
}

template <class Op>
void backward(const Tensor& x, const Tensor& dy, Into dx) {
  dispatch(x.dtype(), "map", [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    bool accumulate = dx.accumulate;
    over_runs<T>(
        [=](int64_t n, const T* in, const T* din, T* out) {
          if (accumulate) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
              out[i] = T(C(out[i]) + C(din[i]) * Op::derivative(C(in[i])));
          } else {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) out[i] = T(C(din[i]) * Op::derivative(C(in[i])));
          }
        },
        x, dy, dx.tensor);
  });
}

template <class Op, class T>
void value_row(int64_t n, const T* x, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = T(Op::value(Compute<T>(x[i])));
}

template <class Op, class T>
void derivative_row(int64_t n, const T* x, T* d) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) d[i] = T(Compute<T>(d[i]) * Op::derivative(Compute<T>(x[i])));
}

template <class Op>
void forward(const Tensor& x, Tensor& y) {
  dispatch(x.dtype(), "map", [&](auto type) {
    using T = decltype(type);
    over_runs<T>([](int64_t n, const T* in, T* out) { value_row<Op>(n, in, out); }, x, y);
  });
}

}  // namespace

#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)

void CpuEngine::map(Unary op, const Tensor& x, Tensor& y) const {
  check_same("map", x, y);
  switch (op) {
#define UNARY(name, Functor, low, high, summary) \
  case Unary::name:                              \
    return forward<Functor>(x, y);
#include "tensor/ops/ops.def"
#undef UNARY
  }
}

template <class T>
void map_row(Unary op, int64_t n, const T* x, T* y) {
  switch (op) {
#define UNARY(name, Functor, low, high, summary) \
  case Unary::name:                              \
    return value_row<Functor>(n, x, y);
#include "tensor/ops/ops.def"
#undef UNARY
  }
}

template <class T>
void slope_row(Unary op, int64_t n, const T* x, T* d) {
  switch (op) {
#define UNARY(name, Functor, low, high, summary) \
  case Unary::name:                              \
    return derivative_row<Functor>(n, x, d);
#include "tensor/ops/ops.def"
#undef UNARY
  }
}

template void map_row(Unary, int64_t, const float*, float*);
template void map_row(Unary, int64_t, const bf16*, bf16*);
template void map_row(Unary, int64_t, const double*, double*);
template void slope_row(Unary, int64_t, const float*, float*);
template void slope_row(Unary, int64_t, const bf16*, bf16*);
template void slope_row(Unary, int64_t, const double*, double*);

void CpuEngine::map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const {
  check_same("map backward", x, dy);
  check_same("map backward", x, dx.tensor);
  switch (op) {
#define UNARY(name, Functor, low, high, summary) \
  case Unary::name:                              \
    return backward<Functor>(x, dy, dx);
#include "tensor/ops/ops.def"
#undef UNARY
  }
}

void CpuEngine::scale(double alpha, const Tensor& x, Into y) const {
  check(x.shape() == y.tensor.shape(),
        [&] { return "scale: " + text(x) + " into " + text(y.tensor); });
  check_same("scale", x, y.tensor);
  dispatch(x.dtype(), "scale", [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C a = C(alpha);
    bool accumulate = y.accumulate;
    over_runs<T>(
        [=](int64_t n, const T* in, T* out) {
          if (accumulate) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) out[i] = T(C(out[i]) + a * C(in[i]));
          } else {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) out[i] = T(a * C(in[i]));
          }
        },
        x, y.tensor);
  });
}

void CpuEngine::lerp(double t, const Tensor& x, Tensor& y) const {
  check_same("lerp", x, y);
  dispatch(x.dtype(), "lerp", [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C a = C(t), b = C(1 - t);
    over_runs<T>(
        [=](int64_t n, const T* in, T* out) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) out[i] = T(b * C(out[i]) + a * C(in[i]));
        },
        x, y);
  });
}

void CpuEngine::descend(double step, double keep, const Tensor& d, Tensor& w) const {
  check_same("descend", d, w);
  dispatch(w.dtype(), "descend", [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C a = C(step), b = C(keep);
    over_runs<T>(
        [=](int64_t n, const T* direction, T* out) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) out[i] = T(b * C(out[i]) - a * C(direction[i]));
        },
        d, w);
  });
}

void CpuEngine::adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
                     double beta2, double correction1, double correction2, double eps) const {
  check_same("adam", gradient, m);
  check_same("adam", gradient, v);
  check_same("adam", gradient, direction);
  dispatch(gradient.dtype(), "adam", [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C b1 = C(beta1), a1 = C(1 - beta1), b2 = C(beta2), a2 = C(1 - beta2);
    C c1 = C(1 / correction1), c2 = C(1 / correction2), e = C(eps);
    over_runs<T>(
        [=](int64_t n, const T* g, T* first, T* second, T* d) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) {
            C gi = C(g[i]);
            C mi = b1 * C(first[i]) + a1 * gi;
            C vi = b2 * C(second[i]) + a2 * gi * gi;
            first[i] = T(mi);
            second[i] = T(vi);
            d[i] = T(mi * c1 / (sqrt_of(vi * c2) + e));
          }
        },
        gradient, m, v, direction);
  });
}

#undef BINARY
#undef FUNCTION

}  // namespace murmur
