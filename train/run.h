// train/run.h - a finished or stopped run, opened for use.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "nn/model.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/identity.h"

namespace murmur {

struct Run {
  Config config;
  std::unique_ptr<Model> model;
  int64_t step;
  Identity began_with;  // as far as it is known
};

// The newest checkpoint, or the one of `step` (perhaps kBestStep); the mean of all nodes, or `node`
// alone, where they have weights of their own. InputError where the folder is no run, or has no
// such node.
Run open_run(const std::string& folder, std::optional<int64_t> step = {},
             std::optional<int64_t> node = {});

// Writes a run's weights, the mean or those of one node, as a run folder of its own: for sample,
// eval and other programs, without state to resume from.
void export_run(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node,
                const std::string& out);

// What --init-from names: RUN, or RUN/checkpoint/step-00001000. The run's folder, its tokenizer and
// settings, and the checkpoint. InputError where the number of heads, which no tensor shows, or the
// tokenizer is not that of `config`.
std::string run_of_weights(const std::string& folder);
Checkpoint open_weights(const Config& config, const std::string& tokenizer_path);

// Copies the saved parameters in. InputError names a missing, surplus or misshapen one.
void load_parameters(const Checkpoint& checkpoint, Parameters& parameters,
                     std::optional<int64_t> node = {});

}  // namespace murmur
