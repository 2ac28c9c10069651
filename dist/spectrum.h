// dist/spectrum.h - eigenvalues and singular values of mixing matrices, in doubles.
#pragma once

#include <cstddef>
#include <vector>

namespace murmur {

struct SquareMatrix {
  int size;
  std::vector<double> entries;  // row by row

  explicit SquareMatrix(int n) : size(n), entries(size_t(n) * size_t(n)) {}
  double& operator()(int row, int column) { return entries[size_t(row) * size + column]; }
  double operator()(int row, int column) const { return entries[size_t(row) * size + column]; }
  double* row(int i) { return &entries[size_t(i) * size]; }
  const double* row(int i) const { return &entries[size_t(i) * size]; }
};
SquareMatrix transposed(const SquareMatrix& m);

// A symmetric matrix, turned until only three diagonals are left; its eigenvalues are the same.
struct Tridiagonal {
  std::vector<double> diagonal, beside;
};
Tridiagonal tridiagonal(SquareMatrix symmetric);
double eigenvalue(const Tridiagonal& t, int k);  // the k-th smallest, from 0

double largest_singular_value(const SquareMatrix& m);  // to its own last digits, however small
// The largest modulus among eigenvalues, for matrices that need not be symmetric. Powers tell:
// ||m^k||^(1/k). Digits beyond 1e-12 need a matrix of full eigenvectors.
double spectral_radius(SquareMatrix m);

}  // namespace murmur
