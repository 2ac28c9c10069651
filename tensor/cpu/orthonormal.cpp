// tensor/cpu/orthonormal.cpp - Gram-Schmidt, every column against those before it, twice: once is
// not enough where columns are nearly parallel, twice always is (Giraud et al., 2005).
#include <cmath>
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {
namespace {

double dot(int64_t m, const double* a, const double* b) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < m; i++) s += a[i] * b[i];
  return s;
}

double norm_of(int64_t m, const double* a) { return std::sqrt(dot(m, a, a)); }

// v less its parts along the `count` rows of q.
void take_out(int64_t m, int64_t count, const double* q, double* v) {
  for (int twice = 0; twice < 2; twice++) {
    for (int64_t j = 0; j < count; j++) {
      double t = dot(m, q + j * m, v);
#pragma omp simd
      for (int64_t i = 0; i < m; i++) v[i] -= t * q[j * m + i];
    }
  }
}

// columns: n columns, each contiguous, of length m.
void orthonormalize(int64_t m, int64_t n, double* columns) {
  constexpr double kDependent = 1e-6;  // left of a column's length when the others are taken out
  int64_t unit = 0;                    // the next unit vector to try
  for (int64_t j = 0; j < n; j++) {
    double* v = columns + j * m;
    double before = norm_of(m, v);
    if (before != 0) {
      for (int64_t i = 0; i < m; i++) v[i] /= before;  // squares of what is left stay in range
      take_out(m, j, columns, v);
    }
    // Some unit vector keeps at least sqrt((m - j) / m) of its length. NaN takes no one's place.
    double left = before == 0 ? 0 : norm_of(m, v);
    for (double enough = kDependent; left <= enough && unit < m; unit++) {
      std::fill(v, v + m, 0.0);
      v[unit] = 1;
      take_out(m, j, columns, v);
      left = norm_of(m, v);
      enough = 0.5 / std::sqrt(double(m));
    }
    for (int64_t i = 0; i < m; i++) v[i] /= left;
  }
}

}  // namespace

void orthonormal_columns(const Tensor& x, Tensor& q) {
  check_orthonormal(x, q);
  int64_t count = x.shape()[0], m = x.shape()[1], n = x.shape()[2];
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_tasks(count, [&](int64_t k) {
      std::vector<double> columns(size_t(m * n));
      const T* from = x.data<T>() + k * m * n;
      T* to = q.data<T>() + k * m * n;
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) columns[size_t(j * m + i)] = double(from[i * n + j]);
      }
      orthonormalize(m, n, columns.data());
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) to[i * n + j] = T(Compute<T>(columns[size_t(j * m + i)]));
      }
    });
  });
}

}  // namespace murmur::cpu
