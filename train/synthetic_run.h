// train/synthetic_run.h - one run of a method on made-up functions: strategy, optimizer and update
// are those of `murmur train`; the gradient alone is another.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/noise.h"
#include "train/objective.h"

namespace murmur {

struct SyntheticProblem {
  std::string objective = "quadratic", noise = "student_t:1.5";
  double noise_scale = 1;
  Landscape landscape;  // its nodes and seed are those of the run
};

// With x the mean over nodes of what they have before a step. Measured at steps that lie further
// and further apart; in means each stands for the steps until the next.
struct Trace {
  std::string diverged{};              // at which step; empty: it did not
  std::vector<double> steps{};         // taken before: 0, 1, ..
  std::vector<double> stationarity{};  // |grad f(x)|_*
  std::vector<double> running_mean{};  // of it, over the steps so far
  std::vector<double> consensus{};     // sqrt(sum over nodes of |X_i - x|_F^2)
  std::vector<double> excess{};        // f(x) - min f; empty where the minimum is unknown
  double mean = INFINITY;              // stationarity over all steps: what the theory bounds
  double late = INFINITY;              // and over the last quarter of them
};

// config: recipe, rate, steps, nodes, topology, schedule, seed. InputError where method, graph and
// problem do not fit together.
Trace run_synthetic(const Config& config, const SyntheticProblem& problem);

}  // namespace murmur
