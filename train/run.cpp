// train/run.cpp - config.toml says which model, the checkpoint says which weights.
#include "train/run.h"

#include <fmt/format.h>

#include <filesystem>

#include "tensor/ops.h"
#include "train/files.h"
#include "train/identity.h"

namespace murmur {

namespace {

// As rank files of replica_state.cpp name them.
std::string of_node(int64_t node, const std::string& name) {
  return fmt::format("node.{}/{}.training", node, name);
}

}  // namespace

void load_parameters(const Checkpoint& checkpoint, Parameters& parameters,
                     std::optional<int64_t> node) {
  size_t found = 0;
  for (const Parameter& p : parameters.all()) {
    if (!checkpoint.model.contains(p.name)) {
      throw InputError(fmt::format("{}: no parameter '{}'; the checkpoint is of another model",
                                   checkpoint.path, p.name));
    }
    bool there = !node || checkpoint.optimizer.contains(of_node(*node, p.name));
    if (!there) {
      throw InputError(fmt::format(
          "node: {} holds no weights of a node {}; leave --node out for the mean of all",
          checkpoint.path, *node));
    }
    Tensor saved = node ? checkpoint.optimizer.read(of_node(*node, p.name))
                        : checkpoint.model.read(p.name),
           value = parameters.value(p);
    if (!(saved.shape() == value.shape())) {
      throw InputError(
          fmt::format("{}: '{}' is {}, the model wants {}; use the settings the run began with",
                      checkpoint.path, p.name, text(saved.shape()), text(value.shape())));
    }
    ops::copy(saved, value);
    found++;
  }
  if (found != checkpoint.model.names().size()) {
    throw InputError(
        fmt::format("{}: holds {} parameters, the model has {}; the checkpoint is of another model",
                    checkpoint.path, checkpoint.model.names().size(), found));
  }
  parameters.refresh_shadow();
}

namespace {

// RUN, and the step where a checkpoint was named.
std::pair<std::string, std::optional<int64_t>> named_weights(const std::string& folder) {
  std::filesystem::path path = std::filesystem::path(folder + "/").parent_path();
  std::optional<int64_t> step = checkpoint_step(path.filename().string());
  if (!step || path.parent_path().filename() != "checkpoint") return {folder, {}};
  std::string run = path.parent_path().parent_path().string();
  return {run.empty() ? "." : run, step};
}

}  // namespace

std::string run_of_weights(const std::string& folder) { return named_weights(folder).first; }

Checkpoint open_weights(const Config& config, const std::string& tokenizer_path) {
  const auto [run, step] = named_weights(config.init_from);
  if (!has_checkpoint(run)) {
    throw InputError(fmt::format(
        "init_from: '{}' is no run with a checkpoint; name one, or a folder of `murmur export`",
        config.init_from));
  }
  if (path_exists(run + "/config.toml")) {
    const int64_t heads = make_config(read_toml(run + "/config.toml")).n_head;
    if (heads != config.n_head) {
      throw InputError(fmt::format("n_head: the weights of '{}' are for {} heads, not {}", run,
                                   heads, config.n_head));
    }
  }
  if (path_exists(run + "/tokenizer.json")) {
    const std::string theirs = tokenizer_digest(run + "/tokenizer.json"),
                      ours = tokenizer_digest(tokenizer_path);
    if (theirs != ours) {
      throw InputError(
          fmt::format("init_from: '{}' has another tokenizer ({}) than the data ({}); prepare the "
                      "data with its",
                      run, theirs, ours));
    }
  }
  return load_checkpoint(run, step);
}

Run open_run(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node) {
  if (!path_exists(folder + "/config.toml")) {
    throw InputError(fmt::format(
        "run: '{}' is no run folder (no config.toml); name the --out of a training run", folder));
  }
  Run run{make_config(read_toml(folder + "/config.toml")), nullptr, 0, {}};
  if (!has_checkpoint(folder))
    throw InputError(fmt::format("run: '{}' has no checkpoint yet; train it first", folder));
  Checkpoint checkpoint = load_checkpoint(folder, step);
  auto saved = checkpoint.state.counters.find("vocabulary");
  int64_t vocabulary = saved != checkpoint.state.counters.end()
                           ? saved->second
                           : checkpoint.model.read("wte.weight").rows();
  const GptConfig shape = model_config(run.config, vocabulary);
  run.began_with = load_identity(folder);
  require_same(run.began_with, model_identity(shape), folder, "set config.toml as it was");
  if (const std::string tokenizer = folder + "/tokenizer.json";
      std::filesystem::exists(tokenizer)) {
    const Identity here = {{"tokenizer", tokenizer_digest(tokenizer)}};
    require_same(run.began_with, here, folder, "bring its tokenizer.json back");
    run.began_with.insert(here.begin(), here.end());
  }
  run.model =
      std::make_unique<Model>(shape, uint64_t(run.config.seed), activation_type(run.config));
  load_parameters(checkpoint, run.model->parameters, node);
  run.step = checkpoint.step;
  return run;
}

void export_run(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node,
                const std::string& out) {
  if (path_exists(out + "/config.toml"))
    throw InputError(fmt::format("out: '{}' holds a run; name another folder", out));
  Run run = open_run(folder, step, node);
  std::vector<NamedTensor> weights;
  for (const Parameter& p : run.model->parameters.all())
    weights.push_back({p.name, run.model->parameters.value(p)});
  make_directories(out);
  CheckpointState state;
  state.counters["vocabulary"] = run.model->gpt.vocabulary();
  state.text["exported_from"] = folder;
  state.text["weights"] = node ? fmt::format("of node {}", *node) : "to use; the mean of all nodes";
  save_checkpoint(out, run.step, weights, {}, state);
  const std::string tokenizer = folder + "/tokenizer.json";
  if (path_exists(tokenizer)) write_file_durably(out + "/tokenizer.json", read_file(tokenizer));
  save_identity(out, run.began_with);
  run.config.out = out;
  write_file_durably(out + "/config.toml", to_toml(run.config, out));  // last: now it is a run
}

}  // namespace murmur
