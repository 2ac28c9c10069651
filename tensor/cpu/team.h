// tensor/cpu/team.h - how one row is worked on here: by one core, in vector lanes. Row operations
// (tensor/ops/*.h) are written once over a Team; tensor/cuda/ has a Team of threads.
#pragma once

#include <cstdint>

#include "tensor/scalar.h"

namespace murmur {

struct Team {
  template <class F>
  static void each(int64_t n, const F& f) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) f(i);
  }
  // The largest f(i), passing over NaN; `lowest` where there are none.
  template <class C, class F>
  static C max(int64_t n, C lowest, const F& f) {
    C m = lowest;
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) {
      C v = f(i);
      m = v > m ? v : m;
    }
    return m;
  }
  template <class C, class F>
  static C sum(int64_t n, const F& f) {
    C s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += f(i);
    return s;
  }
};

}  // namespace murmur
