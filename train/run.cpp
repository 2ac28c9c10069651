// train/run.cpp - config.toml says which model, the checkpoint says which weights.
#include "train/run.h"

#include <fmt/format.h>

#include <filesystem>

namespace murmur {

void load_parameters(const Checkpoint& checkpoint, Parameters& parameters) {
  size_t found = 0;
  for (const Parameter& p : parameters.all()) {
    if (!checkpoint.model.contains(p.name)) {
      throw InputError(fmt::format("{}: no parameter '{}'; the checkpoint is of another model",
                                   checkpoint.path, p.name));
    }
    Tensor saved = checkpoint.model.read(p.name), value = parameters.value(p);
    if (!(saved.shape() == value.shape())) {
      throw InputError(
          fmt::format("{}: '{}' is {}, the model wants {}; use the settings the run began with",
                      checkpoint.path, p.name, text(saved.shape()), text(value.shape())));
    }
    engine(value.device()).copy(saved, value);
    found++;
  }
  if (found != checkpoint.model.names().size()) {
    throw InputError(
        fmt::format("{}: holds {} parameters, the model has {}; the checkpoint is of another model",
                    checkpoint.path, checkpoint.model.names().size(), found));
  }
  parameters.refresh_shadow();
}

Run open_run(const std::string& folder, std::optional<int64_t> step) {
  if (!std::filesystem::exists(folder + "/config.toml")) {
    throw InputError(fmt::format(
        "run: '{}' is no run folder (no config.toml); name the --out of a training run", folder));
  }
  Run run{make_config(read_toml(folder + "/config.toml")), nullptr, 0};
  if (!has_checkpoint(folder))
    throw InputError(fmt::format("run: '{}' has no checkpoint yet; train it first", folder));
  Checkpoint checkpoint = load_checkpoint(folder, step);
  int64_t vocabulary = checkpoint.model.read("wte.weight").rows();
  run.model = std::make_unique<Model>(model_config(run.config, vocabulary),
                                      uint64_t(run.config.seed), activation_type(run.config));
  load_parameters(checkpoint, run.model->parameters);
  run.step = checkpoint.step;
  return run;
}

}  // namespace murmur
