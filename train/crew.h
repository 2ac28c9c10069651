// train/crew.h - one run after the other on the same ranks.
//
// Where ranks are processes, MPI can start but once in each of them, and one has to keep the books:
// rank 0 leads a race, with its folders, tables and lines; the others train what it trains.
#pragma once

#include <functional>

#include "train/trainer.h"

namespace murmur {

using Watch = std::function<void(const LogRow&)>;
// train() with `resume`, on every rank there is.
using TrainRun = std::function<TrainSummary(const Config&, const Watch&)>;

TrainSummary train_here(const Config& config,
                        const Watch& watch);  // its ranks start and end with it

// Calls `lead` in the process that leads, with what trains on all ranks of `config.transport` and
// how many they are (0: each run has its own). Returns its exit code, in every process.
int with_crew(const Config& config, const std::function<int(const TrainRun&, int ranks)>& lead);

}  // namespace murmur
