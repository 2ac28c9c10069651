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

// The newest checkpoint, or the one of `step`. InputError where the folder is no run.
Run open_run(const std::string& folder, std::optional<int64_t> step = {});

// Copies the saved parameters in. InputError names a missing, surplus or misshapen one.
void load_parameters(const Checkpoint& checkpoint, Parameters& parameters);

}  // namespace murmur
