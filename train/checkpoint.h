// train/checkpoint.h - the checkpoints of a run folder: whole or absent, whenever the power goes.
//
//   RUN/checkpoint/step-00001000/model.safetensors       parameters
//                                optimizer.safetensors   optimizer state
//                                state.json              counters, and the checksums of the two
//   RUN/checkpoint/latest                                "step-00001000", for people and scripts
//                  best                                  "step-00000600 1.2401": which one, its loss
// A save is made in .step-00001000.part and renamed; loading looks at the folders' names only, so
// it never meets half a checkpoint. The newest ones are kept, and the best.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/safetensors.h"  // NamedTensor, SafetensorsFile

namespace murmur {

// What a run must remember besides tensors. All three come back exactly, not-a-number included.
struct CheckpointState {
  std::map<std::string, int64_t> counters;
  std::map<std::string, std::string> text;  // UTF-8
  std::map<std::string, double> values;
};

struct Checkpoint {
  int64_t step;
  SafetensorsFile model, optimizer;
  CheckpointState state;
  std::string path;  // of its folder
};

// A run folder holds one history: saving after going back to an earlier step removes the later
// checkpoints of the abandoned continuation. A checkpoint of the same step is replaced in one act.
void save_checkpoint(const std::string& run_dir, int64_t step, std::span<const NamedTensor> model,
                     std::span<const NamedTensor> optimizer, const CheckpointState& state,
                     int64_t keep = 2);

// The newest, or the one of `step`. Every byte is verified; damage is an InputError that names the
// file and the checkpoint to use instead.
Checkpoint load_checkpoint(const std::string& run_dir, std::optional<int64_t> step = {});
CheckpointState checkpoint_state(const std::string& run_dir, std::optional<int64_t> step = {});
// Which one these take. InputError where it is not there.
int64_t find_checkpoint(const std::string& run_dir, std::optional<int64_t> step = {});
constexpr int64_t kBestStep = -1;  // for `step`: the best

// The one with the lowest validation loss so far, which has just been saved or measured.
struct BestCheckpoint {
  int64_t step;
  double loss;
};
void mark_best(const std::string& run_dir, BestCheckpoint best, int64_t keep = 2);
std::optional<BestCheckpoint> best_checkpoint(const std::string& run_dir);

std::vector<int64_t> list_checkpoints(const std::string& run_dir);  // steps, ascending
bool has_checkpoint(const std::string& run_dir);

std::string checkpoint_name(int64_t step);                        // 1000 -> "step-00001000"
std::optional<int64_t> checkpoint_step(const std::string& name);  // "step-1000" -> 1000

}  // namespace murmur
