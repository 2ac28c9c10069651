// train/significance.cpp - means, spreads, Student's t, and the rule of track 3.
#include "train/significance.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace murmur {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double squared_deviations(std::span<const double> values) {
  double middle = mean(values), sum = 0;
  for (double value : values) sum += (value - middle) * (value - middle);
  return sum;
}

// The continued fraction of the incomplete beta function, from the front (Lentz).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  auto away_from_zero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), result = d;
  for (int i = 1; i <= 500; i++) {
    double even = i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i));
    double odd = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1));
    double change = 1;
    for (double term : {even, odd}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      result *= change = c * d;
    }
    if (std::abs(change - 1) < 1e-15) break;
  }
  return result;
}

// I_x(a, b), the regularised incomplete beta function. `rest` is 1 - x, exact where x is close
// to 1.
double incomplete_beta(double a, double b, double x, double rest) {
  if (x <= 0) return 0;
  if (rest <= 0) return 1;
  double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) +
                          b * std::log(rest));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                   : 1 - front * beta_fraction(b, a, rest) / b;
}

}  // namespace

double mean(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? kUnknown : sum / double(values.size());
}

double median(std::span<const double> values) {
  if (values.empty()) return kUnknown;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  size_t half = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return kUnknown;
  return std::sqrt(squared_deviations(values) / double(values.size() - 1));
}

double standard_error(std::span<const double> values) {
  return standard_deviation(values) / std::sqrt(double(values.size()));
}

double student_p(double t, double degrees_of_freedom) {
  if (std::isnan(t) || !(degrees_of_freedom > 0)) return kUnknown;
  if (std::isinf(t)) return 0;
  double whole = degrees_of_freedom + t * t;
  return incomplete_beta(degrees_of_freedom / 2, 0.5, degrees_of_freedom / whole, t * t / whole);
}

PairedTest paired_test(std::span<const double> a, std::span<const double> b) {
  std::vector<double> differences;
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) differences.push_back(b[i] - a[i]);
  PairedTest test{mean(differences), standard_error(differences), kUnknown, kUnknown};
  test.t = test.difference == 0 ? 0 * test.error : test.difference / test.error;
  test.p = student_p(test.t, double(differences.size()) - 1);
  return test;
}

double pooled_deviation(const std::vector<std::vector<double>>& groups) {
  double squares = 0, freedom = 0;
  for (const std::vector<double>& group : groups) {
    if (group.size() < 2) continue;
    squares += squared_deviations(group);
    freedom += double(group.size()) - 1;
  }
  return freedom > 0 ? std::sqrt(squares / freedom) : kUnknown;
}

double track3_score(double loss_b_minus_a, double steps_saved, double seeds_a, double seeds_b,
                    double slope) {
  return (loss_b_minus_a + slope * steps_saved / 100) / std::sqrt(1 / seeds_a + 1 / seeds_b);
}

double track3_threshold(double sigma) { return kTrack3Threshold / kTrack3Sigma * sigma; }

double slope(std::span<const double> x, std::span<const double> y) {
  double middle_x = mean(x), middle_y = mean(y), xy = 0, xx = 0;
  for (size_t i = 0; i < x.size(); i++) {
    xy += (x[i] - middle_x) * (y[i] - middle_y);
    xx += (x[i] - middle_x) * (x[i] - middle_x);
  }
  return xx > 0 ? xy / xx : kUnknown;
}

}  // namespace murmur
