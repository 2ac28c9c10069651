// train/significance.h - does a difference mean anything? Pure arithmetic over a few numbers.
#pragma once

#include <cmath>
#include <span>
#include <vector>

namespace murmur {

double mean(std::span<const double> values);
double median(std::span<const double> values);
// Of one value: sqrt(sum (x - mean)^2 / (n - 1)); NaN for fewer than two.
double standard_deviation(std::span<const double> values);
double standard_error(std::span<const double> values);  // of their mean

// The chance that |t| is at least this large where nothing is different.
double student_p(double t, double degrees_of_freedom);

// Two contenders on the same seeds. What a seed does to both of them cancels in the differences.
struct PairedTest {
  double difference = NAN;  // mean of b - a
  double error = NAN;       // its standard error
  double t = NAN, p = NAN;  // two-sided, n - 1 degrees of freedom; NaN for fewer than two seeds
};
PairedTest paired_test(std::span<const double> a, std::span<const double> b);

// One spread for several groups: sqrt(sum of squared deviations / sum of (n - 1)).
double pooled_deviation(const std::vector<std::vector<double>>& groups);

// The rule of the modded-nanogpt benchmark, track 3: A is better than B where the score reaches
// kTrack3Threshold.   (loss_B - loss_A + slope steps_saved / 100) / sqrt(1/n_A + 1/n_B)
// The slope, 0.0045 nats per 100 steps, and the spread over seeds behind the threshold, 0.0013,
// are that benchmark's own. With another spread the threshold keeps its ratio to it.
inline constexpr double kTrack3Slope = 0.0045, kTrack3Sigma = 0.0013, kTrack3Threshold = 0.004;
double track3_score(double loss_b_minus_a, double steps_saved, double seeds_a, double seeds_b,
                    double slope = kTrack3Slope);
double track3_threshold(double sigma);

// Least squares: how much y changes per unit of x; NaN for fewer than two points.
double slope(std::span<const double> x, std::span<const double> y);

}  // namespace murmur
