// dist/spectrum.cpp - Householder's reduction, Sturm's count of eigenvalues, Gelfand's formula.
#include "dist/spectrum.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

namespace murmur {
namespace {

double dot(const double* a, const double* b, int n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

void add(double* to, double factor, const double* x, int n) {
#pragma omp simd
  for (int i = 0; i < n; i++) to[i] += factor * x[i];
}

SquareMatrix product(const SquareMatrix& a, const SquareMatrix& b) {
  SquareMatrix c(a.size);
  for (int i = 0; i < a.size; i++) {
    for (int k = 0; k < a.size; k++) {
      if (a(i, k) != 0) add(c.row(i), a(i, k), b.row(k), a.size);
    }
  }
  return c;
}

double norm(const SquareMatrix& m) {
  return std::sqrt(dot(m.entries.data(), m.entries.data(), int(m.entries.size())));
}

// Sturm: as many eigenvalues lie below x as pivots of t - x are negative.
int below(const Tridiagonal& t, double x) {
  int count = 0;
  double pivot = 1;
  for (size_t i = 0; i < t.diagonal.size(); i++) {
    double coupled = i == 0 ? 0 : t.beside[i - 1] * t.beside[i - 1] / pivot;
    pivot = t.diagonal[i] - x - coupled;
    if (std::fabs(pivot) < 1e-300) pivot = -1e-300;
    count += pivot < 0;
  }
  return count;
}

}  // namespace

SquareMatrix transposed(const SquareMatrix& m) {
  SquareMatrix t(m.size);
  for (int i = 0; i < m.size; i++) {
    for (int j = 0; j < m.size; j++) t(j, i) = m(i, j);
  }
  return t;
}

// One reflection a column: it takes everything below the entry beside the diagonal into that entry.
Tridiagonal tridiagonal(SquareMatrix a) {
  int n = a.size;
  Tridiagonal t{std::vector<double>(n), std::vector<double>(std::max(0, n - 1))};
  std::vector<double> v(n), w(n);
  constexpr double kUnderflow = 1e-280;
  for (int k = 0; k + 1 < n; k++) {
    int rest = n - k - 1;
    for (int i = 0; i < rest; i++) v[i] = a(k + 1 + i, k);
    double length = std::sqrt(dot(v.data(), v.data(), rest));
    double mirrored = v[0] > 0 ? -length : length;
    t.diagonal[k] = a(k, k);
    v[0] -= mirrored;
    double square = dot(v.data(), v.data(), rest);
    if (square < kUnderflow) continue;  // nothing there
    t.beside[k] = mirrored;
    double scale = 2 / square;
    for (int i = 0; i < rest; i++) w[i] = scale * dot(a.row(k + 1 + i) + k + 1, v.data(), rest);
    add(w.data(), -0.5 * scale * dot(w.data(), v.data(), rest), v.data(), rest);
    for (int i = 0; i < rest; i++) {
      add(a.row(k + 1 + i) + k + 1, -v[i], w.data(), rest);
      add(a.row(k + 1 + i) + k + 1, -w[i], v.data(), rest);
    }
  }
  if (n > 0) t.diagonal[n - 1] = a(n - 1, n - 1);
  return t;
}

double eigenvalue(const Tridiagonal& t, int k) {
  double reach = 0;  // Gershgorin: no eigenvalue lies further out
  for (size_t i = 0; i < t.diagonal.size(); i++) {
    double left = i == 0 ? 0 : std::fabs(t.beside[i - 1]);
    double right = i + 1 == t.diagonal.size() ? 0 : std::fabs(t.beside[i]);
    reach = std::max(reach, std::fabs(t.diagonal[i]) + left + right);
  }
  double low = -reach, high = reach;
  while (high - low > 1e-16 * reach) {
    double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;
    (below(t, middle) > k ? high : low) = middle;
  }
  return 0.5 * (low + high);
}

double largest_singular_value(const SquareMatrix& m) {
  Tridiagonal t = tridiagonal(product(transposed(m), m));
  return m.size == 0 ? 0 : std::sqrt(std::max(0.0, eigenvalue(t, m.size - 1)));
}

double spectral_radius(SquareMatrix m) {
  constexpr double kNothing = 1e-13, kMostWork = 2e10;
  double cube = double(m.size) * m.size * m.size;
  int squarings = int(std::clamp(kMostWork / cube, 12.0, 45.0));
  double length = norm(m), growth = 0;
  if (length == 0) return 0;
  double log_norm = std::log(length);  // of m^(2^k)
  for (int k = 0; k < squarings; k++) {
    for (double& entry : m.entries) entry /= length;
    m = product(m, m);
    length = norm(m);
    if (length < kNothing) return 0;  // a power of it is zero
    double power = double(int64_t{1} << k), before = growth;
    double next = 2 * log_norm + std::log(length);
    growth = (next - log_norm) / power;  // from m^(2^k) to m^(2^(k + 1)), per factor
    log_norm = next;
    if (k > 3 && std::fabs(growth - before) < 1e-14) break;
  }
  return std::exp(growth);
}

}  // namespace murmur
