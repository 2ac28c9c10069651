// train/bench_dist.h - what every strategy sends, keeps and works: counted here, foreseen there.
#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace murmur {

struct DistBench {
  std::vector<int64_t> counts = {2, 4, 8};  // ranks to really run, as threads; 0: none
  std::vector<int64_t> plan = {2, 8, 64};   // ranks to foresee
  std::vector<std::string> networks;        // by name; empty: all of the list
  double tflops = 0;                        // of orthogonalisation; 0: a product here tells
};

// For every strategy that sends anything. `counted`: a step of the configured model on random
// tokens, with one micro-batch a rank, or the mean over a period's steps: traffic beside what
// Strategy::plan() foresees and what is published, memory, and how orthogonalisation is divided.
// `planned`: milliseconds of such a step's exchanges and orthogonalisation on each network, from
// shapes alone. Settings of a strategy (strategy.inner_steps) are those of config.strategy.
std::string bench_dist(Config config, const DistBench& wanted);

}  // namespace murmur
