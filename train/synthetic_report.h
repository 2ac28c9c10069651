// train/synthetic_report.h - what the synthetic suite has found, for people and programs.
#pragma once

#include "train/synthetic.h"

namespace murmur {

struct SyntheticReport {
  SyntheticOptions options;
  Config config{};  // of the first method
  TheoryRule rule;
  std::vector<Candidate> candidates{};  // of a race, or
  std::vector<RateFit> fits{};          // of the rates
};

// To the terminal, and into the folder of the configuration.
void write(const SyntheticReport& report);

}  // namespace murmur
