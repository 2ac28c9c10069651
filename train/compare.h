// train/compare.h - what a race has shown: losses, steps to a target, and which differences count.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "train/race.h"
#include "train/significance.h"

namespace murmur {

// The outcomes of one contender, summed up. Losses in nats per token.
struct Standing {
  Contender contender;
  double rate = 0;
  std::vector<double> val_loss{};  // per seed; infinite where it diverged
  double mean = NAN, error = NAN;
  std::vector<std::optional<int64_t>> steps_to_target{};  // per seed
  std::optional<double> mean_steps_to_target{};           // where every seed reached it
  double ms_per_step = NAN;                               // median over all steps of all seeds
  std::optional<int64_t> state_bytes{};
  std::vector<double> consensus{}, node_spread{};  // per seed, where there are nodes
  double fall = NAN;                               // of the mean curve near its end, per 100 steps
  std::vector<Trial> trials{};
  bool at_edge = false;  // the best rate is the smallest or largest that was tried
  std::vector<double> curve_steps{}, curve{}, curve_error{};  // validations that all seeds have

  bool diverged() const { return std::isinf(mean); }
};

struct Verdict {
  std::string better, worse;  // labels; without a verdict in the order of the contenders
  std::string why_not{};      // there is no verdict: one seed, a run that diverged; else empty
  PairedTest test{};          // worse - better
  double worth = NAN;         // the difference in steps, at the slope of the two mean curves
  double score = NAN;         // of track 3, with no steps saved: all runs have the same length
  double sigma = NAN;         // spread over seeds, pooled over the two
  bool shown = false;         // p is below the level
  bool track3 = false;        // by that benchmark's spread
  bool track3_own = false;    // by sigma
};

struct Comparison {
  Config config;  // what the runs share
  std::vector<int64_t> seeds{};
  double target = NAN;
  std::string target_from{};          // where the target comes from
  std::vector<Standing> standings{};  // as they were named
  std::vector<Verdict> verdicts{};    // each with the first, and the best with the second best
  double level = 0.05;                // 0.05, shared among the verdicts
};

// Without a target: the highest last loss of the first contender, which all of its seeds reach.
Comparison judge(const Config& config, const std::vector<Entrant>& entrants,
                 std::optional<double> target = {});

struct CompareOptions {
  std::string optimizers = "adamw,muon", lrs{}, json{};
  int64_t seeds = 3, tune_seeds = 1;
  std::optional<double> target{};
  std::vector<Assignment> settings{};  // of all runs
  TrainRun train = train_here;
};

// The race of `options`, trained and judged; nothing where a signal came.
std::optional<Comparison> race_and_judge(const CompareOptions& options);

// The command: races, judges, prints the tables, writes DIR/compare.md, .json and .png. Its exit
// code.
int compare(const CompareOptions& options);

}  // namespace murmur
