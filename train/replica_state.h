// train/replica_state.h - a checkpoint of all ranks: what of them is saved, and how it comes back,
// on as many ranks or on others, divided in the same way or in another.
//
//   model.safetensors      the weights to use, whole: NAME
//   optimizer.safetensors  state, whole: NAME.momentum; where the weights to use are not those that
//                          train (schedule-free): NAME.training
//                          where ranks train weights of their own: all this once for every rank,
//                          under node.0/, node.1/ .., and what the strategy remembers:
//                          outer.momentum, node.0/strategy.tracker
//
// Rank 0 alone reads and writes files.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "dist/replica.h"
#include "train/checkpoint.h"

namespace murmur {

// All ranks call these together. `keep` checkpoints are left.
void save_replica(const std::string& run_dir, int64_t step, Replica& replica, Strategy& strategy,
                  Communicator& c, const std::map<std::string, int64_t>& counters, int64_t keep);
// InputError where the checkpoint is of another model or another optimizer. Ranks that trained
// weights of their own go on so where there are as many of them again; any others begin with the
// mean. False where they do.
bool restore_replica(const std::string& run_dir, int64_t step, Replica& replica, Strategy& strategy,
                     Communicator& c, const std::string& optimizer);
// The weights to use of a checkpoint that rank 0 has opened, and nothing else of it.
void begin_with_weights(const std::optional<Checkpoint>& from, Replica& replica, Strategy& strategy,
                        Communicator& c);

}  // namespace murmur
