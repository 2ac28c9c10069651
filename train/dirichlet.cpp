// train/dirichlet.cpp - gamma numbers, each divided by their sum, are a draw from Dirichlet.
#include "train/dirichlet.h"

#include <algorithm>
#include <cmath>

#include "tensor/check.h"
#include "tensor/ops/philox.h"

namespace murmur {
namespace {

constexpr uint64_t kKey = 0x6469726963686c65;  // apart from the numbers that make weights

// Random numbers one after another; the state is a position in a stream of Philox.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t stream) : seed_(seed ^ kKey), stream_(stream) {}

  double uniform() {  // inside (0, 1), on the middle of one of 2^52 equal intervals
    const Philox p(seed_, stream_, block_++);
    const uint64_t bits = (uint64_t(p.x[0]) << 32 | p.x[1]) >> 12;
    return (double(bits) + 0.5) * 0x1p-52;
  }
  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * M_PI * uniform());
  }

 private:
  uint64_t seed_, stream_, block_ = 0;
};

// The logarithm of a number from Gamma(alpha, 1). Marsaglia & Tsang (2000): d (1 + c x)^3 with x
// normal is almost one, and a rejection makes it exact. Below alpha = 1 they take
// Gamma(alpha + 1) U^(1 / alpha), which may underflow; its logarithm does not.
double log_gamma_number(double alpha, Draws& draws) {
  if (alpha < 1) {
    const double power = std::log(draws.uniform()) / alpha;
    return power + log_gamma_number(alpha + 1, draws);
  }
  const double d = alpha - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = draws.normal(), root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(draws.uniform()) < x * x / 2 + d * (1 - v + std::log(v))) return std::log(d * v);
  }
}

}  // namespace

std::vector<double> dirichlet(double alpha, int64_t count, uint64_t seed, uint64_t stream) {
  check(alpha > 0 && count > 0, "dirichlet: alpha and count must be positive");
  Draws draws(seed, stream);
  std::vector<double> parts(size_t(count), 0);
  for (double& part : parts) part = log_gamma_number(alpha, draws);
  const double largest = *std::max_element(parts.begin(), parts.end());
  double sum = 0;
  for (double& part : parts) sum += part = std::exp(part - largest);
  for (double& part : parts) part /= sum;
  return parts;
}

}  // namespace murmur
