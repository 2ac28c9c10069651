// train/run.h - a finished or stopped run, opened for use.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "nn/model.h"
#include "train/checkpoint.h"
#include "train/config.h"

namespace murmur {

struct Run {
  Config config;
  std::unique_ptr<Model> model;
  int64_t step;
};

// The newest checkpoint, or the one of `step`; the mean of all nodes, or `node` alone, where they
// have weights of their own. InputError where the folder is no run, or has no such node.
Run open_run(const std::string& folder, std::optional<int64_t> step = {},
             std::optional<int64_t> node = {});

// Writes a run's weights, the mean or those of one node, as a run folder of its own: for sample,
// eval and other programs, without state to resume from.
void export_run(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node,
                const std::string& out);

// Copies the saved parameters in. InputError names a missing, surplus or misshapen one.
void load_parameters(const Checkpoint& checkpoint, Parameters& parameters,
                     std::optional<int64_t> node = {});

}  // namespace murmur
