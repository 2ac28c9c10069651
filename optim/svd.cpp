// optim/svd.cpp - one-sided Jacobi rotations (Hestenes, 1958): columns of X V are turned, two at a
// time, until all are orthogonal; they are then U S.
#include "optim/svd.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/ops.h"

namespace murmur {
namespace {

using Columns = std::vector<std::vector<double>>;

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < a.size(); i++) s += a[i] * b[i];
  return s;
}

void rotate(double c, double s, std::vector<double>& a, std::vector<double>& b) {
#pragma omp simd
  for (size_t i = 0; i < a.size(); i++) {
    double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

// What counts as zero beside the longest column: the threshold of NumPy's matrix_rank.
double negligible(const Columns& x) {
  double largest = 0;
  for (const auto& column : x) largest = std::max(largest, std::sqrt(dot(column, column)));
  return largest * double(std::max(x.size(), x[0].size())) * 2.2e-16;
}

// Makes the columns of x orthogonal, but for negligible ones; v, when given, is turned along.
void orthogonalize_columns(Columns& x, Columns* v) {
  constexpr double kParallel = 1e-15;
  double nothing = negligible(x) * negligible(x);
  bool turned = true;
  for (int sweep = 0; turned && sweep < 60; sweep++) {
    turned = false;
    for (size_t p = 0; p < x.size(); p++) {
      for (size_t q = p + 1; q < x.size(); q++) {
        double a = dot(x[p], x[p]), b = dot(x[q], x[q]), ab = dot(x[p], x[q]);
        if (std::min(a, b) <= nothing || std::fabs(ab) <= kParallel * std::sqrt(a * b)) continue;
        turned = true;
        double zeta = (b - a) / (2 * ab);
        double t = (zeta >= 0 ? 1 : -1) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
        double c = 1 / std::sqrt(1 + t * t);
        rotate(c, c * t, x[p], x[q]);
        if (v) rotate(c, c * t, (*v)[p], (*v)[q]);
      }
    }
  }
}

// In doubles on the CPU.
Tensor exact(const Tensor& x) {
  Tensor here({x.shape()}, DType::f64);
  ops::copy(x, here);
  return here;
}

// Divided by the largest entry, so that squares stay in range; false for zeros.
bool bring_into_range(int64_t n, double* x) {
  double top = 0;
  for (int64_t i = 0; i < n; i++) top = std::max(top, std::fabs(x[i]));
  for (int64_t i = 0; i < n && top > 0; i++) x[i] /= top;
  return top > 0;
}

// x: (m, n) in row-major order, overwritten.
void polar_factor(int64_t m, int64_t n, double* x) {
  if (!bring_into_range(m * n, x)) return;
  bool tall = m >= n;
  size_t length = size_t(std::max(m, n)), small = size_t(std::min(m, n));
  auto at = [=](size_t i, size_t j) -> double& {  // i along the long side
    return tall ? x[i * size_t(n) + j] : x[j * size_t(n) + i];
  };
  Columns us(small, std::vector<double>(length)), v(small, std::vector<double>(small));
  for (size_t j = 0; j < small; j++) {
    for (size_t i = 0; i < length; i++) us[j][i] = at(i, j);
    v[j][j] = 1;
  }
  orthogonalize_columns(us, &v);
  double nothing = negligible(us);
  std::fill(x, x + m * n, 0.0);
  for (size_t k = 0; k < small; k++) {
    double s = std::sqrt(dot(us[k], us[k]));
    if (s <= nothing) continue;
    for (size_t i = 0; i < length; i++) {
      double u = us[k][i] / s;
      for (size_t j = 0; j < small; j++) at(i, j) += u * v[k][j];
    }
  }
}

}  // namespace

void polar_factors(const Tensor& bank, Tensor& result) {
  Tensor x = exact(bank);
  int64_t m = bank.shape()[1], n = bank.shape()[2];
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t k = 0; k < bank.shape()[0]; k++) polar_factor(m, n, x.data<double>() + k * m * n);
  ops::copy(x, result);
}

// The columns of A V = V S, longest first, are eigenvectors but for their lengths; those of length
// zero are replaced by a completion of the basis.
void eigenvectors(const Tensor& bank, Tensor& result) {
  Tensor x = exact(bank), vectors(bank.shape(), DType::f64);
  size_t n = size_t(bank.shape()[2]);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t k = 0; k < bank.shape()[0]; k++) {
    double* a = x.data<double>() + size_t(k) * n * n;
    bring_into_range(int64_t(n * n), a);
    Columns columns(n, std::vector<double>(n));
    for (size_t j = 0; j < n; j++) {
      for (size_t i = 0; i < n; i++) columns[j][i] = a[i * n + j];
    }
    orthogonalize_columns(columns, nullptr);
    double nothing = negligible(columns);
    std::vector<double> lengths(n);
    for (size_t j = 0; j < n; j++) lengths[j] = std::sqrt(dot(columns[j], columns[j]));
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t i, size_t j) { return lengths[i] > lengths[j]; });
    for (size_t j = 0; j < n; j++) {
      double length = lengths[order[j]];
      for (size_t i = 0; i < n; i++)
        a[i * n + j] = length > nothing ? columns[order[j]][i] / length : 0;
    }
  }
  ops::orthonormal_columns(x, vectors);
  ops::copy(vectors, result);
}

}  // namespace murmur
