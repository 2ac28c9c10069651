// tensor/cpu/map.cpp - y = f(x) for every UNARY row of ops.def, and the few maps with a constant.
#include "tensor/checks.h"
#include "tensor/cpu/factor.h"
#include "tensor/cpu/map_row.h"
#include "tensor/cpu/over_runs.h"
#include "tensor/functor.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

template <class Op>
void backward(const Tensor& x, const Tensor& dy, Into dx) {
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    bool accumulate = dx.accumulate;
    over_runs_of<T>(
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
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    over_runs_of<T>([](int64_t n, const T* in, T* out) { value_row<Op>(n, in, out); }, x, y);
  });
}

template <class T, class U>
void scale_run(int64_t n, Compute<U> a, const T* in, U* out, bool accumulate) {
  using C = Compute<U>;
  if (accumulate) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = U(C(out[i]) + a * C(in[i]));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = U(a * C(in[i]));
  }
}

}  // namespace

void map(Unary op, const Tensor& x, Tensor& y) {
  check_same(x, y);
  with_functor(op, [&](auto f) { forward<decltype(f)>(x, y); });
}

template <class T>
void map_row(Unary op, int64_t n, const T* x, T* y) {
  with_functor(op, [&](auto f) { value_row<decltype(f)>(n, x, y); });
}

template <class T>
void slope_row(Unary op, int64_t n, const T* x, T* d) {
  with_functor(op, [&](auto f) { derivative_row<decltype(f)>(n, x, d); });
}

template void map_row(Unary, int64_t, const float*, float*);
template void map_row(Unary, int64_t, const bf16*, bf16*);
template void map_row(Unary, int64_t, const double*, double*);
template void slope_row(Unary, int64_t, const float*, float*);
template void slope_row(Unary, int64_t, const bf16*, bf16*);
template void slope_row(Unary, int64_t, const double*, double*);

void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) {
  check_same(x, dy);
  check_same(x, dx.tensor);
  with_functor(op, [&](auto f) { backward<decltype(f)>(x, dy, dx); });
}

void scale(const Factor& alpha, const Tensor& x, Into y) {
  check_shape(x, y.tensor);
  int64_t parts = alpha.by ? alpha.by.numel() : 1;
  check(parts == 1 || x.shape()[0] == parts,
        [&] { return std::to_string(parts) + " factors for " + text(x); });
  dispatch(x.dtype(), [&](auto type) {
    dispatch(y.tensor.dtype(), [&](auto out_type) {
      using T = decltype(type);
      using U = decltype(out_type);
      using C = Compute<U>;
      bool accumulate = y.accumulate;
      if (parts == 1) {
        C a = C(value_of(alpha));
        return over_runs(
            [=](int64_t n, const T* in, U* out) { scale_run(n, a, in, out, accumulate); },
            Strip<T>{x}, Strip<U>{y.tensor});
      }
      int64_t rows = x.rows(), of_part = rows / parts, cols = x.cols();
      parallel_for(rows, grain_for(rows, int64_t(sizeof(T) + sizeof(U)) * cols),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; r++)
                       scale_run(cols, C(value_of(alpha, r / of_part)), Strip<T>{x}.at(r, 0),
                                 Strip<U>{y.tensor}.at(r, 0), accumulate);
                   });
    });
  });
}

void lerp(double t, const Tensor& x, Tensor& y) {
  check_same(x, y);
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C a = C(t), b = C(1 - t);
    over_runs_of<T>(
        [=](int64_t n, const T* in, T* out) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) out[i] = T(b * C(out[i]) + a * C(in[i]));
        },
        x, y);
  });
}

}  // namespace murmur::cpu
