// train/synthetic.h - the theory of decentralised, heavy-tailed training put to the test: methods
// that race on functions whose gradients are known, and the rates at which they get stationary.
#pragma once

#include <string>
#include <vector>

#include "train/synthetic_run.h"

namespace murmur {

struct SyntheticOptions {
  // Recipes, each perhaps with settings of `murmur train`: "demuon:strategy=gossip;topology=ring".
  std::vector<std::string> recipes = {"demuon", "gt_nsgdm", "dsgd", "dsgd_clip", "sen"};
  std::vector<double> factors = {0.01, 0.03, 0.1, 0.3,
                                 1,    3,    10,  30};  // of the recipe's learning rate
  int64_t seeds = 3;
  bool rates = false;
  std::vector<int64_t> horizons = {256, 1024, 4096, 16384};  // of the rates
  SyntheticProblem problem;
  std::string json;
  std::vector<Assignment> settings;  // of all runs
};

struct Method {
  std::string label;
  std::vector<Assignment> settings;  // the recipe, then its own
};
// InputError where a recipe or a setting is wrong.
Method parse_method(const std::string& text);

// A method, and the learning rates that were tried on the first seed.
struct Tuned {
  Method method;
  double rate = 0;                                  // the best
  std::vector<std::pair<double, double>> trials{};  // rate, mean stationarity; none: no choice
  bool at_edge = false;                             // the best is the smallest or the largest
};

struct Candidate {
  Tuned tuned;
  std::vector<Trace> runs{};  // one per seed, at the best rate
};

// With a tail index a and T steps:  rate c T^(-(2a - 1) / (3a - 2)),  theta = 1 - momentum =
// T^(-a / (3a - 2)). That makes the three terms of the bound, the way to go, the drift of the
// momentum and the noise in it, the same order: mean stationarity falls as T^(-(a - 1) / (3a - 2)).
struct TheoryRule {
  double tail_index;
  double rate_exponent() const { return -(2 * tail_index - 1) / (3 * tail_index - 2); }
  double theta_exponent() const { return -tail_index / (3 * tail_index - 2); }
  double bound() const { return -(tail_index - 1) / (3 * tail_index - 2); }
};

// Mean stationarity over horizons. Slopes are those of its logarithm over log T, seed by seed.
struct RateFit {
  Tuned tuned;                                // at the shortest horizon; c follows from it
  std::vector<std::vector<Trace>> runs{};     // [horizon][seed]
  std::vector<double> slopes{};               // of each seed, over all horizons
  double slope = NAN, error = NAN;            // their mean, its standard error
  double last_slope = NAN, last_error = NAN;  // between the two longest horizons
  double flatter_p = NAN;  // one-sided: of slopes as flat as these, were the bound's the true one
};
void fit_slopes(const std::vector<int64_t>& horizons, const TheoryRule& rule, RateFit& fit);

// The command: runs, prints tables, writes DIR/synthetic.md, .json and .png.
void synthetic(const SyntheticOptions& options);

}  // namespace murmur
