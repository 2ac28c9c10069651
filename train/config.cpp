// train/config.cpp - the list of settings; presets; TOML in and out.
#include "train/config.h"

#include <fmt/format.h>

#include <CLI/Config.hpp>
#include <algorithm>
#include <sstream>

#include "dist/faults.h"
#include "dist/strategy.h"
#include "dist/transport.h"
#include "optim/registry.h"
#include "tensor/nearest.h"
#include "train/files.h"  // read_file
#include "train/partition.h"

namespace murmur {
namespace {

std::vector<std::string> or_auto(std::vector<std::string> names) {
  names.insert(names.begin(), "auto");
  return names;
}

std::vector<std::string> or_none(std::vector<std::string> names) {
  names.insert(names.begin(), "none");
  return names;
}

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

void apply_preset(Config& c, const std::string& name) {
  const Preset& p = find_named("preset", preset_list(), name);
  c.n_layer = p.n_layer;
  c.n_head = p.n_head;
  c.n_embd = p.n_embd;
  c.block_size = p.block_size;
  c.batch_size = p.batch_size;
  c.vocab_size = p.vocab_size;
}

// One optimizer with its settings; `owner` is "optimizer" or "auxiliary".
NamedOptimizer configured(const std::string& owner, const std::string& name,
                          const std::map<std::string, std::string>& settings) {
  std::shared_ptr<Optimizer> optimizer = make_optimizer(name);
  configure(*optimizer, owner, settings);
  return {name, optimizer};
}

// The auxiliary AdamW of Muon recipes has no decay and a higher rate than AdamW alone.
NamedOptimizer configured_auxiliary(const Config& c) {
  std::map<std::string, std::string> settings{{"weight_decay", "0"}};
  if (c.auxiliary == "adamw") settings["lr"] = "0.003";
  for (const auto& [key, value] : c.auxiliary_options) settings[key] = value;
  return configured("auxiliary", c.auxiliary, settings);
}

}  // namespace

std::vector<Option> Config::options() {
  constexpr double kMany = 1e15;
  std::vector<Option> all = {
      {"preset", &preset, "model and batch shape to start from", 0, 0, names_of(preset_list())},
      {"arch",
       &arch,
       "gpt2: learned positions, LayerNorm, GELU, tied head; modern: RoPE, RMSNorm, QK-norm, "
       "ReLU^2, untied",
       0,
       0,
       {"gpt2", "modern"}},
      {"n_layer", &n_layer, "layers", 1, 1000},
      {"n_head", &n_head, "attention heads", 1, 1000},
      {"n_embd", &n_embd, "width", 1, 65536},
      {"block_size", &block_size, "tokens a sequence (context length)", 1, 1 << 20},
      {"vocab_size", &vocab_size, "rows of the embedding; 0: as many as the data needs", 0, 65536},
      {"bias", &bias, "biases in gpt2's linear and norm layers"},
      {"checkpointing", &checkpointing,
       "compute activations again in backward instead of keeping them"},
      {"data", &data, "folder made by `murmur data prepare`"},
      {"partition", &partition,
       "which node reads what: iid: its share of each batch; by-document: whole documents of its "
       "own; dirichlet:ALPHA: uneven parts of every document"},
      {"out", &out, "run folder: configuration, log, plot, checkpoints"},
      {"steps", &steps, "optimizer steps", 1, kMany},
      {"batch_size", &batch_size, "sequences a step", 1, 1 << 20},
      {"accumulation", &accumulation, "micro-batches a step, on every rank", 1, 1 << 20},
      {"seed", &seed, "of weights, data order and partition", 0, kMany},
      {"threads", &threads, "0: all cores; the result does not depend on it", 0, 4096},
      {"device", &device, "where tensors live", 0, 0, {"cpu", "cuda"}},
      {"cuda_graph", &cuda_graph, "launch a whole step at once (GPU); for small models"},
      {"dtype",
       &dtype,
       "of activations; parameters are always fp32; auto: bf16 on a GPU",
       0,
       0,
       {"auto", "fp32", "bf16"}},
      {"nodes", &nodes,
       "ranks that train together; 0: one, or as many processes as a launcher started", 0, 4096},
      {"transport", &transport,
       "what carries messages between ranks; auto: threads, or self where there is one; where a "
       "launcher started several processes mpi, or for torchrun nccl",
       0, 0, or_auto(names_of(transport_list()))},
      {"strategy", &strategy,
       "what ranks do together around an update; auto: sharded, or local where there is one", 0, 0,
       or_auto(names_of(strategy_list()))},
      {"faults", &faults, "what goes wrong and when, for experiments: lose:5@300,rejoin:5@400"},
      {"deadline", &deadline, "seconds a rank waits for another before the run ends", 0.1, 1e6},
      {"recipe", &recipe, "a strategy and an optimizer that have a name together; other flags win",
       0, 0, or_none(names_of(recipe_list()))},
      {"optimizer", &optimizer, "of the matrices, and of everything unless it is for matrices only",
       0, 0, names_of(optimizer_list())},
      {"auxiliary", &auxiliary, "optimizer of what the first one does not take", 0, 0,
       names_of(optimizer_list())},
      {"row_blocks", &row_blocks,
       "packed queries, keys and values to the optimizer as one matrix, as three, or three a head",
       0, 0, kRowBlocks},
      {"matrices",
       &matrices,
       "what an optimizer for matrices takes: those of the blocks, or embedding and head as well",
       0,
       0,
       {"hidden", "all"}},
      {"one_rate", &one_rate, "the auxiliary optimizer takes the first one's learning rate"},
      {"clip", &clip, "largest global gradient norm; 0: no clipping", 0, 1e9},
      {"clip_growth", &clip_growth, "at step t the norm may be clip t^clip_growth", -10, 10},
      {"clip_form",
       &clip_form,
       "gradients of at most that norm, or all of exactly that norm",
       0,
       0,
       {"at_most", "exactly"}},
      {"schedule", &schedule, "learning rate over the run", 0, 0, names_of(schedule_list())},
      {"warmup", &warmup, "steps of linear warm-up", 0, kMany},
      {"min_lr", &min_lr, "learning rate at the end, relative to the peak", 0, 1},
      {"decay_fraction", &decay_fraction, "share of the steps in which wsd decays", 0, 1},
      {"eval_every", &eval_every, "steps between validations; 0: only at the end", 0, kMany},
      {"eval_batches", &eval_batches,
       "batches of a validation in between; the last one reads everything", 1, kMany},
      {"checkpoint_every", &checkpoint_every, "steps between checkpoints; 0: only at the end", 0,
       kMany},
      {"log_every", &log_every, "steps between printed lines when the output is no terminal", 1,
       kMany},
  };
  for (Option& option : graph.options()) all.push_back(std::move(option));
  return all;
}

namespace {

// What `auto` means for transport and strategy.
void settle_ranks(Config& c) {
  if (c.transport == "auto") c.transport = usual_transport(c.nodes);
  bool several = c.transport != "self" && !(c.transport == "threads" && c.nodes <= 1);
  if (c.transport == "self" && c.nodes > 1) {
    throw InputError(
        fmt::format("nodes: transport self has one rank, not {}; use threads or mpi", c.nodes));
  }
  if (c.strategy == "auto") c.strategy = several ? "sharded" : "local";
  if (c.cuda_graph && several) {
    throw InputError(
        "cuda_graph: a step that exchanges messages cannot be captured; leave cuda_graph off");
  }
  auto strategy = configured_strategy(c);  // checks its settings
  if (c.cuda_graph && strategy->own_weights() && c.strategy != "local") {
    throw InputError("cuda_graph: strategy " + c.strategy +
                     " looks at the step on the host; leave cuda_graph off");
  }
  Faults(c.faults).check_nodes(int(std::max<int64_t>(1, c.nodes ? c.nodes : 4096)));
}

}  // namespace

std::unique_ptr<Strategy> configured_strategy(const Config& c) {
  std::unique_ptr<Strategy> strategy = make_strategy(c.strategy);
  configure(*strategy, c.strategy, c.strategy_options);
  strategy->graph = c.graph;
  return strategy;
}

const std::vector<Recipe>& recipe_list() {
  auto recipe = [](std::string name, std::string formula, std::string summary,
                   const std::string& settings) {
    Recipe r{std::move(name), std::move(formula), std::move(summary), {}};
    std::istringstream words(settings);
    for (std::string word; words >> word;) {
      size_t at = word.find('=');
      r.settings.emplace_back(word.substr(0, at), word.substr(at + 1));
    }
    return r;
  };
  static const std::vector<Recipe> list = {
#define RECIPE(name, formula, summary, settings) recipe(#name, formula, summary, settings),
#include "train/recipes.def"
#undef RECIPE
  };
  return list;
}

namespace {

// What a recipe says, without settings of an optimizer or strategy whose place another takes.
std::vector<Assignment> with_recipe(const std::vector<Assignment>& assignments) {
  std::map<std::string, std::string> wanted;
  for (const auto& [key, value] : assignments) wanted[key] = value;
  std::vector<Assignment> all;
  for (const Recipe& recipe : recipe_list()) {
    if (recipe.name != wanted["recipe"]) continue;
    for (const auto& [key, value] : recipe.settings) {
      std::string owner = key.substr(0, key.find('.'));
      std::string own;
      for (const auto& [k, v] : recipe.settings)
        if (k == owner) own = v;
      bool replaced = key != owner && !wanted[owner].empty() && wanted[owner] != own;
      if (!replaced) all.emplace_back(key, value);
    }
  }
  all.insert(all.end(), assignments.begin(), assignments.end());
  return all;
}

}  // namespace

const std::vector<Preset>& preset_list() {
  static const std::vector<Preset> list = {
#define PRESET(name, layers, heads, width, block, batch, vocabulary, summary) \
  {#name, layers, heads, width, block, batch, vocabulary, summary},
#include "train/presets.def"
#undef PRESET
  };
  return list;
}

Config make_config(const std::vector<Assignment>& given) {
  std::vector<Assignment> assignments = with_recipe(given);
  Config c;
  for (const auto& [key, value] : assignments) {
    if (key == "preset") c.preset = value;
  }
  apply_preset(c, c.preset);
  for (const auto& [key, value] : assignments) {
    if (starts_with(key, "optimizer.")) {
      c.optimizer_options[key.substr(10)] = value;
    } else if (starts_with(key, "auxiliary.")) {
      c.auxiliary_options[key.substr(10)] = value;
    } else if (starts_with(key, "strategy.")) {
      c.strategy_options[key.substr(9)] = value;
    } else if (key == "lr") {
      c.optimizer_options["lr"] = value;
    } else {
      set_option(c.options(), "", key, value);
    }
  }
  for (const Option& option : c.options()) {
    auto value = std::get_if<std::string*>(&option.value);
    if (value && (*value)->find_first_of("#\n") != std::string::npos)
      throw InputError(
          fmt::format("{}: '{}' holds a character that config.toml cannot keep; name it without #",
                      option.name, **value));
  }
  c.partition = text(partition_rule(c.partition));
  settle_ranks(c);
  if (c.batch_size / std::max<int64_t>(1, c.nodes) < c.accumulation) {
    throw InputError(fmt::format(
        "batch_size: {} sequences are too few for {} ranks with {} micro-batches each; at least {}",
        c.batch_size, std::max<int64_t>(1, c.nodes), c.accumulation,
        std::max<int64_t>(1, c.nodes) * c.accumulation));
  }
  make_routes(c);  // checks the optimizers' settings
  return c;
}

std::vector<Assignment> read_toml(const std::string& path) {
  std::istringstream in(read_file(path));
  std::vector<Assignment> assignments;
  try {
    for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(in)) {
      if (item.name == "++" || item.name == "--") continue;  // section borders
      if (item.inputs.size() != 1)
        throw InputError(fmt::format("config: {}: '{}' needs one value", path, item.fullname()));
      assignments.emplace_back(item.fullname(), item.inputs[0]);
    }
  } catch (const CLI::Error& e) {
    throw InputError(fmt::format("config: {}: {}", path, e.what()));
  }
  return assignments;
}

std::string to_toml(Config c) {
  auto line = [](const Option& option) {
    const char* quote = std::holds_alternative<std::string*>(option.value) ? "\"" : "";
    return fmt::format("{0} = {1}{2}{1}\n", option.name, quote, option_text(option));
  };
  std::string text;
  for (const Option& option : c.options()) text += line(option);
  text += "\n[optimizer]\n";
  NamedOptimizer main = configured("optimizer", c.optimizer, c.optimizer_options);
  for (const Option& option : all_options(*main.optimizer)) text += line(option);
  text += "\n[auxiliary]\n";
  NamedOptimizer auxiliary = configured_auxiliary(c);
  for (const Option& option : all_options(*auxiliary.optimizer)) text += line(option);
  std::unique_ptr<Strategy> strategy = configured_strategy(c);
  std::vector<Option> of_strategy = strategy->options();  // pointers into it
  if (!of_strategy.empty()) text += "\n[strategy]\n";
  for (const Option& option : of_strategy) text += line(option);
  return text;
}

GptConfig model_config(const Config& c, int64_t data_vocab_size) {
  int64_t vocabulary = c.vocab_size ? c.vocab_size : data_vocab_size;
  if (vocabulary < data_vocab_size) {
    throw InputError(fmt::format("vocab_size: {} is smaller than the {} tokens of {}", vocabulary,
                                 data_vocab_size, c.data));
  }
  return {c.n_layer,    c.n_head,       c.n_embd,
          c.block_size, vocabulary,     c.arch == "modern" ? Arch::modern : Arch::gpt2,
          c.bias,       c.checkpointing};
}

std::vector<Route> make_routes(const Config& c) {
  std::vector<Route> routes =
      default_routes(configured("optimizer", c.optimizer, c.optimizer_options),
                     configured_auxiliary(c), c.row_blocks, c.matrices == "all");
  for (Route& route : routes) {
    const Optimizer& main = *routes[0].use.optimizer;
    double own = route.use.optimizer->learning_rate;
    if (c.one_rate && own != main.learning_rate) {
      if (own == 0)
        throw InputError(
            "one_rate: auxiliary.lr is 0, which no factor makes another; leave it out");
      route.lr_scale = main.learning_rate / own;
    }
    if (route.role == Role::vector && route.use.optimizer->matrices_only()) {
      throw InputError("auxiliary: " + route.use.name +
                       " is for matrices only, and it is to take the rest; use adamw");
    }
    if (c.cuda_graph && c.clip_growth != 0)
      throw InputError("cuda_graph: clip_growth changes a captured step; leave cuda_graph off");
    if (c.cuda_graph && !route.use.optimizer->replayable()) {
      throw InputError("cuda_graph: " + route.use.name +
                       " looks at the step's number on the host; leave cuda_graph off");
    }
    if (route.use.optimizer->largest_score() > 0 && c.arch == "modern") {
      throw InputError(
          "optimizer: " + route.use.name +
          " clips queries and keys, but arch modern normalises them, so that their length has no "
          "effect; set optimizer.qk_clip 0 or take arch gpt2");
    }
  }
  return routes;
}

Clip clip_of(const Config& c) { return {c.clip, c.clip_growth, c.clip_form == "exactly"}; }

Schedule make_schedule(const Config& c) {
  return {c.schedule, c.steps, c.warmup, c.min_lr, c.decay_fraction};
}

Device device_of(const Config& c) { return c.device == "cuda" ? Device::cuda : Device::cpu; }

DType activation_type(const Config& c) {
  bool half = c.dtype == "bf16" || (c.dtype == "auto" && c.device == "cuda");
  return half ? DType::bf16 : DType::f32;
}

}  // namespace murmur
