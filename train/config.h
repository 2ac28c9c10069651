// train/config.h - everything a run can be told, listed once in config.cpp: defaults, parsing,
// help, the saved config.toml and `murmur list config` all follow that list.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "dist/strategy.h"
#include "nn/gpt.h"
#include "optim/router.h"
#include "optim/schedule.h"
#include "optim/update.h"

namespace murmur {

struct Config {
  // model
  std::string preset = "nano", arch = "gpt2", activation = "auto";
  int64_t n_layer = 4, n_head = 4, n_embd = 128, block_size = 64, vocab_size = 0;
  bool bias = true, checkpointing = false;
  // data and place
  std::string data = "data/kjv", partition = "iid", out = "runs/default";
  // run
  int64_t steps = 1000, batch_size = 12, accumulation = 1, seed = 1337, threads = 0;
  std::string device = "cpu", dtype = "auto", strategy = "auto", transport = "auto";
  bool cuda_graph = false;
  int64_t nodes = 0;
  double deadline = 120;
  std::string faults;
  std::string init_from;
  int64_t eval_every = 500, eval_batches = 40, checkpoint_every = 1000, log_every = 100;
  int64_t keep = 2;
  bool keep_best = true;
  double max_minutes = 0;
  // update
  std::string optimizer = "muon", auxiliary = "adamw", schedule = "wsd", row_blocks = "whole";
  std::string matrices = "hidden", clip_form = "at_most", recipe = "none";
  std::string recipe_values = "tuned";
  bool one_rate = false;
  TopologyOptions graph;
  double clip = 1, clip_growth = 0, min_lr = 0.05, decay_fraction = 0.5;
  int64_t warmup = 100;
  // settings of the two optimizers by name: {"momentum", "0.9"}
  std::map<std::string, std::string> optimizer_options, auxiliary_options;
  std::map<std::string, std::string> strategy_options;

  std::vector<Option> options();  // pointers into this object
};

struct Assignment {
  std::string name, value;  // "n_layer", "6"
  std::string where = "";   // "my.toml:3:1", of what stands in a file
  bool operator==(const Assignment&) const = default;
};

// The last one of a name counts.
std::string value_of(const std::vector<Assignment>& settings, const std::string& name,
                     const std::string& otherwise = "");

// Defaults, then preset and recipe, then the assignments in order. `optimizer.momentum` and
// `auxiliary.beta1` reach the optimizers; `lr` is short for `optimizer.lr`. InputError names the
// setting, where it stands, what is wrong, and the nearest known name.
Config make_config(const std::vector<Assignment>& assignments);

// What `top` says wins, also by a preset or recipe that `base` does not have already; settings of
// an optimizer, auxiliary or strategy end where `top` names another.
std::vector<Assignment> over(std::vector<Assignment> base, const std::vector<Assignment>& top);

// Every setting of a configuration with its value, resolved, by full name: "optimizer.lr".
void for_each_setting(Config config,
                      const std::function<void(const std::string& name, const Option&)>& visit);

// A setting's value where two are compared: of a folder, where it lies, however it is named.
std::string comparable(const Option& option);
// Of a run that began with one and goes on with the other: "batch_size 12 -> 24". The weights say
// themselves where a setting does not fit them.
std::vector<std::string> changes(const Config& began, const Config& now);

// Settings as a TOML file. An optimizer, auxiliary or strategy is a table, its name a key of it.
// Relative paths in it start at its folder, wherever it is read.
std::vector<Assignment> read_toml(const std::string& path);
std::string to_toml(const Config& config, const std::string& folder,  // of those settings
                    const std::function<bool(const std::string& name)>& wanted = {});

struct Preset {
  std::string name;
  int64_t n_layer, n_head, n_embd, block_size, batch_size, vocab_size;
  std::string summary;
};
const std::vector<Preset>& preset_list();

// A strategy and an optimizer that have a name together, and their defaults.
struct Recipe {
  std::string name, formula, summary;
  std::vector<Assignment> settings;   // every one that the formula depends on
  std::vector<Assignment> published;  // in their place with recipe_values=published; may be empty
};
const std::vector<Recipe>& recipe_list();

GptConfig model_config(const Config& config, int64_t data_vocab_size);
std::vector<Route> make_routes(const Config& config);
Clip clip_of(const Config& config);
Schedule make_schedule(const Config& config);
std::unique_ptr<Strategy> configured_strategy(const Config& config);
Device device_of(const Config& config);
DType activation_type(const Config& config);

}  // namespace murmur
