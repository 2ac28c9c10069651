// train/noise.cpp - four distributions, each a formula in two uniform numbers.
#include "train/noise.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "nn/parameter.h"  // stream_of
#include "tensor/nearest.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

double none(double, double, double) { return 0; }

double gaussian(double u, double v, double) {  // Box & Muller
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
}

// Box and Muller again, with another radius (Bailey, Mathematics of Computation 62, 1994).
double student_t(double u, double v, double nu) {
  return std::sqrt(nu * std::expm1(-2 / nu * std::log(u))) * std::cos(2 * M_PI * v);
}

// Chambers, Mallows & Stuck, 1976, without skewness.
double levy(double u, double v, double alpha) {
  double angle = M_PI * (v - 0.5), waiting = -std::log(u);
  return std::sin(alpha * angle) / std::pow(std::cos(angle), 1 / alpha) *
         std::pow(std::cos((1 - alpha) * angle) / waiting, (1 - alpha) / alpha);
}

}  // namespace

const std::vector<NoiseEntry>& noise_list() {
  static const std::vector<NoiseEntry> list = {
#define NOISE(name, index, summary) {#name, summary, index, name},
#include "train/noises.def"
#undef NOISE
  };
  return list;
}

Noise::Noise(const std::string& text, double scale) : entry_(nullptr), scale_(scale) {
  size_t colon = std::min(text.find(':'), text.size());
  std::string name = text.substr(0, colon);
  entry_ = &find_named("noise", noise_list(), name);
  if (entry_->most == 0 && colon < text.size())
    throw InputError(
        fmt::format("noise: {} has no index; leave out '{}'", name, text.substr(colon)));
  if (entry_->most == 0) return;
  const char *from = text.data() + std::min(colon + 1, text.size()),
             *to = text.data() + text.size();
  auto [stop, error] = std::from_chars(from, to, index_);
  if (error != std::errc() || stop != to || !(index_ > 1 && index_ <= entry_->most)) {
    throw InputError(fmt::format("noise: '{}' needs an index above 1 and up to {}, as in {}:1.5",
                                 text, entry_->most, name));
  }
}

double Noise::tail_index() const { return index_ > 0 ? std::min(index_, 2.0) : 2; }

// The engine's uniform numbers have 24 bits, which would cut a tail of index 1.5 at 2^16 scales;
// two of them make one of 48.
void Noise::add(int64_t seed, int64_t node, int64_t step, Tensor& g) const {
  if (scale_ == 0) return;
  constexpr double kLast = 1.0 / (1 << 24);
  int64_t n = g.numel();
  Tensor draws({4, n}, DType::f64);
  uint64_t stream = stream_of(fmt::format("noise of node {} at step {}", node, step));
  ops::random_uniform(uint64_t(seed), stream, 0, 1, draws);
  const double* bits = draws.data<double>();
  double* to = g.data<double>();
  auto uniform = [&](int64_t i) { return bits[i] + kLast * (bits[n + i] + kLast / 2); };
  for (int64_t i = 0; i < n; i++)
    to[i] += scale_ * entry_->draw(uniform(i), uniform(2 * n + i), index_);
}

}  // namespace murmur
