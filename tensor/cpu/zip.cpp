// tensor/cpu/zip.cpp - y = f(a, b) for every BINARY row of ops.def; b may repeat over a's first
// dimensions.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/functor.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

// Calls f(at, length, step, right) for contiguous runs; `at` is a flat offset or -1 - row, see
// run().
template <class T, class F>
void over_pairs(const Tensor& a, const Tensor& b, const Tensor& y, const F& f) {
  bool scalar = b.numel() == 1 && a.numel() != 1;
  bool flat = a.shape() == b.shape() && extent_of(a, b, y).rows == 1;
  if (flat) {
    parallel_for(a.numel(), grain_for(a.numel(), 3 * sizeof(T)), [&](int64_t begin, int64_t end) {
      f(begin, end - begin, 1, b.data<T>() + begin);
    });
    return;
  }
  int64_t cols = a.cols(), b_rows = scalar ? 1 : b.rows();
  parallel_for(a.rows(), grain_for(a.rows(), 3 * int64_t(sizeof(T)) * cols),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; r++) {
                   f(-1 - r, cols, scalar ? 0 : 1,
                     b.data<T>() + (scalar ? 0 : r % b_rows * b.row_stride()));
                 }
               });
}

// Where a run starts: `at` is a flat offset, or -1 - row.
template <class T>
T* run(const Tensor& x, int64_t at) {
  return x.data<T>() + (at >= 0 ? at : (-1 - at) * x.row_stride());
}

template <class Op>
void forward(const Tensor& a, const Tensor& b, Tensor& y) {
  dispatch(a.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    over_pairs<T>(a, b, y, [&](int64_t at, int64_t n, int64_t step, const T* right) {
      const T* left = run<T>(a, at);
      T* out = run<T>(y, at);
      if (step) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = T(Op::value(C(left[i]), C(right[i])));
      } else {
        C constant = C(*right);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = T(Op::value(C(left[i]), constant));
      }
    });
  });
}

template <class Op>
void backward(bool to_left, const Tensor& a, const Tensor& b, const Tensor& dy, Into d) {
  dispatch(a.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    over_pairs<T>(a, b, dy, [&](int64_t at, int64_t n, int64_t step, const T* right) {
      const T* left = run<T>(a, at);
      const T* grad = run<T>(dy, at);
      T* out = run<T>(d.tensor, at);
      for (int64_t i = 0; i < n; i++) {
        C x = C(left[i]), z = C(right[i * step]);
        C slope = to_left ? Op::left(x, z) : Op::right(x, z);
        out[i] = T((d.accumulate ? C(out[i]) : C(0)) + C(grad[i]) * slope);
      }
    });
  });
}

}  // namespace

void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) {
  check_operands(a, b, y);
  with_functor(op, [&](auto f) { forward<decltype(f)>(a, b, y); });
}

void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                  Into d) {
  check_operands(a, b, dy);
  check(d.tensor.contiguous() == dy.contiguous(), "one gradient has strided rows, the other not");
  with_functor(op, [&](auto f) { backward<decltype(f)>(left, a, b, dy, d); });
}

}  // namespace murmur::cpu
