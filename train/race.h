// train/race.h - trains every run of a race that is not there yet: same weights, same data.
//
//   DIR/race.toml                                what all runs share
//   DIR/muon_momentum=0.9/lr0.02/seed1337/       an ordinary run folder, and when it is done
//                                   result.json  its outcome
// The initial weights depend on the seed and the parameters' names, the batches on seed and step:
// nothing here hands them on, but every first loss is looked at afterwards.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "train/contender.h"
#include "train/crew.h"

namespace murmur {

struct RaceOptions {
  std::vector<Contender> contenders;
  std::vector<Assignment> shared;  // of all runs: model, data, steps, ..
  int64_t seeds = 3;               // shared seed, seed + 1, ..
  int64_t tune_seeds = 1;          // the first ones, on which the rates are tried
  TrainRun train = train_here;
};

struct RunOutcome {
  int64_t seed = 0;
  // After the last step, over the whole validation text; infinite where the run diverged.
  double val_loss = std::numeric_limits<double>::infinity();
  std::string diverged{};                // at which step and why; empty: it did not
  std::optional<double> first_loss{};    // of step 1: before any update
  std::optional<int64_t> state_bytes{};  // of the optimizers' state
  // Of nodes with weights of their own, at the end: their distance (Frobenius), and how much the
  // validation losses of single nodes differ.
  std::optional<double> consensus{}, node_spread{};
  std::vector<double> steps{}, losses{};  // the validations
  std::vector<double> step_ms{};
};

struct Trial {
  double rate;
  std::vector<RunOutcome> runs{};  // of the tuning seeds
  double loss = 0;                 // their mean
};

struct Entrant {
  Contender contender;
  std::vector<Trial> trials{};  // one per rate; none where there was nothing to choose
  double rate = 0;
  std::vector<RunOutcome> runs{};  // at that rate, one per seed
};

// Runs that are done are read, one that was stopped goes on from its checkpoint. Nothing, where
// a signal, or the end of max_minutes, came before it was over. InputError where the folder holds a race with other settings, or
// where two runs of one seed did not begin with the same loss, to the bit.
std::optional<std::vector<Entrant>> run_race(const RaceOptions& options);

}  // namespace murmur
