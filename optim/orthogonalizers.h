// optim/orthogonalizers.h - the list of orthogonalisers: what each does to singular values.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace murmur {

// One step X <- a X + (b A + c A A) X with A = X X^T, which takes every singular value s to
// a s + b s^3 + c s^5.
struct Quintic {
  double a, b, c;
};

struct Orthogonalizer {
  std::string name, summary;
  std::vector<Quintic> polynomials;  // asked for more steps, it repeats the last
  int steps;                         // what it usually does; 0: the exact polar factor, no steps
  double safety = 1;                 // X <- X / (safety |X|_F + eps) before the first step
  double eps = 1e-7;
  // After that, rows (of a tall matrix: columns) are scaled by AOL's diagonal, which brings the
  // largest singular value close to 1 (Boissin et al., 2025); safety then divides the result.
  bool preconditioned = false;
  // No room for rounding errors: values that bf16 pushes above 1 run away.
  bool wants_fp32 = false;

  const Quintic& polynomial(int step) const {
    size_t i = size_t(step);
    return i < polynomials.size() ? polynomials[i] : polynomials.back();
  }
};

const std::vector<Orthogonalizer>& orthogonalizer_list();
// InputError naming the nearest known one.
const Orthogonalizer& find_orthogonalizer(const std::string& name);

}  // namespace murmur
