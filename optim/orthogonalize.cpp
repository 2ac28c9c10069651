// optim/orthogonalize.cpp - Newton-Schulz, batched over a bank.
#include "optim/orthogonalize.h"

#include <cmath>

#include "tensor/engine.h"

namespace murmur {
namespace {

// Divides every matrix by its Frobenius norm. The norm is summed in double: entries of 1e-30 count.
void normalize(Tensor& bank, double eps) {
  const Engine& e = engine(bank.device());
  for (int64_t k = 0; k < bank.shape()[0]; k++) {
    Tensor x = bank.slice(k, k + 1);
    e.scale(1 / (std::sqrt(e.sum_of_squares(x)) + eps), x, {x});
  }
}

}  // namespace

void newton_schulz(Tensor& x, int steps, double eps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  check(x.shape().rank() == 3,
        [&] { return "newton_schulz: " + text(x) + " is no bank (K, m, n)"; });
  const Engine& e = engine(x.device());
  bool tall = x.shape()[1] > x.shape()[2];
  int64_t count = x.shape()[0], small = std::min(x.shape()[1], x.shape()[2]);
  normalize(x, eps);
  Tensor gram({count, small, small}, x.dtype(), x.device()),
      poly(gram.shape(), x.dtype(), x.device());
  Tensor next(x.shape(), x.dtype(), x.device());
  for (int step = 0; step < steps; step++) {
    e.matmul(x, x, {gram}, {.transpose_a = tall, .transpose_b = !tall});  // (K, small, small)
    e.scale(b, gram, {poly});
    e.matmul(gram, gram, {poly, true}, {.alpha = c});
    e.scale(a, x, {next});
    tall ? e.matmul(x, poly, {next, true}, {}) : e.matmul(poly, x, {next, true}, {});
    std::swap(x, next);
  }
}

}  // namespace murmur
