// tensor/cpu/over_runs.h - elementwise loops over several tensors at once, contiguous or row by
// row.
#pragma once

#include "tensor/cpu/parallel.h"
#include "tensor/dispatch.h"

namespace murmur {

// One tensor of an elementwise loop, with its C++ element type.
template <class T>
struct Strip {
  const Tensor& tensor;
  T* at(int64_t row, int64_t column) const {
    return tensor.data<T>() + row * tensor.row_stride() + column;
  }
};

// Calls f(n, pointers...) in parallel for contiguous runs of n elements, one pointer per tensor.
template <class F, class... T>
void over_runs(const F& f, Strip<T>... runs) {
  Extent e = extent_of(runs.tensor...);
  constexpr int64_t bytes = int64_t((sizeof(T) + ...));
  if (e.rows == 1) {
    parallel_for(e.cols, grain_for(e.cols, bytes),
                 [&](int64_t begin, int64_t end) { f(end - begin, runs.at(0, begin)...); });
  } else {
    parallel_for(e.rows, grain_for(e.rows, bytes * e.cols), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) f(e.cols, runs.at(r, 0)...);
    });
  }
}

// The same where all tensors have one type.
template <class T, class F, class... Tensors>
void over_runs_of(const F& f, const Tensors&... tensors) {
  over_runs(f, Strip<T>{tensors}...);
}

}  // namespace murmur
