// train/config.cpp - the list of settings; presets and recipes; what may not go together.
#include "train/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "dist/faults.h"
#include "dist/strategy.h"
#include "dist/transport.h"
#include "optim/registry.h"
#include "tensor/elementwise.h"
#include "tensor/nearest.h"
#include "train/partition.h"
#include "train/tokenizer.h"  // check_utf8

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
  auto marked = [](Change change) {
    return [change](Option option) {
      option.change = change;
      return option;
    };
  };
  const auto free = marked(Change::free), fixed = marked(Change::refused);
  std::vector<Option> all = {
      {"preset", &preset, "model and batch shape to start from", 0, 0, names_of(preset_list())},
      {"arch",
       &arch,
       "gpt2: learned positions, LayerNorm, GELU, tied head; modern: RoPE, RMSNorm, QK-norm, "
       "ReLU^2, untied",
       0,
       0,
       {"gpt2", "modern"}},
      {"activation", &activation,
       "of the MLP: a function of `murmur list ops` of kind unary, NAME:C for another constant in "
       "it; "
       "auto: the arch's own"},
      {"n_layer", &n_layer, "layers", 1, 1000},
      {"n_head", &n_head, "attention heads", 1, 1000},
      {"n_embd", &n_embd, "width", 1, 65536},
      {"block_size", &block_size, "tokens a sequence (context length)", 1, 1 << 20},
      {"vocab_size", &vocab_size,
       "rows of the embedding, those beyond the tokens unused; 0: as many as the data needs", 0,
       65536},
      {"bias", &bias, "biases in gpt2's linear and norm layers"},
      {"checkpointing", &checkpointing,
       "compute activations again in backward instead of keeping them"},
      {"data", &data, "folder made by `murmur data prepare`"},
      {"partition", &partition,
       "which node reads what: iid: its share of each batch; by-document: whole documents of its "
       "own; dirichlet:ALPHA: uneven parts of every document"},
      free({"out", &out, "run folder: configuration, log, plot, checkpoints"}),
      fixed({"init_from", &init_from,
             "run folder, one made by `murmur export`, or RUN/checkpoint/step-..: begin with its "
             "weights and nothing else"}),
      {"steps", &steps, "optimizer steps", 1, kMany},
      {"batch_size", &batch_size, "sequences a step", 1, 1 << 20},
      {"accumulation", &accumulation, "micro-batches a step, on every rank", 1, 1 << 20},
      {"seed", &seed, "of weights, data order and partition", 0, kMany},
      free({"threads", &threads, "0: all cores; the result does not depend on it", 0, 4096}),
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
      free({"deadline", &deadline, "seconds a rank waits for another before the run ends", 0.1,
            1e6}),
      fixed({"recipe", &recipe,
             "a strategy and an optimizer that have a name together; other flags win", 0, 0,
             or_none(names_of(recipe_list()))}),
      {"recipe_values",
       &recipe_values,
       "rate and warm-up of a recipe: tuned here, or as its authors ran it on a ring",
       0,
       0,
       {"tuned", "published"}},
      fixed({"optimizer", &optimizer,
             "of the matrices, and of everything unless it is for matrices only", 0, 0,
             names_of(optimizer_list())}),
      fixed({"auxiliary", &auxiliary, "optimizer of what the first one does not take", 0, 0,
             names_of(optimizer_list())}),
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
      free({"checkpoint_every", &checkpoint_every, "steps between checkpoints; 0: only at the end",
            0, kMany}),
      free({"keep", &keep, "how many checkpoints are kept, the newest ones", 1, kMany}),
      free({"keep_best", &keep_best,
            "keep one more: that with the lowest validation loss, for --step best"}),
      free({"max_minutes", &max_minutes,
            "save and stop when the program has run for so long; 0: no limit", 0, kMany}),
      free({"log_every", &log_every, "steps between printed lines when the output is no terminal",
            1, kMany}),
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
  auto assignments = [](const std::string& text) {
    std::vector<Assignment> all;
    std::istringstream words(text);
    for (std::string word; words >> word;) {
      size_t at = word.find('=');
      all.push_back({word.substr(0, at), word.substr(at + 1)});
    }
    return all;
  };
  static const std::vector<Recipe> list = {
#define RECIPE(name, formula, summary, settings, published) \
  {#name, formula, summary, assignments(settings), assignments(published)},
#include "train/recipes.def"
#undef RECIPE
  };
  return list;
}

const std::vector<Preset>& preset_list() {
  static const std::vector<Preset> list = {
#define PRESET(name, layers, heads, width, block, batch, vocabulary, summary) \
  {#name, layers, heads, width, block, batch, vocabulary, summary},
#include "train/presets.def"
#undef PRESET
  };
  return list;
}

namespace {

// A recipe's settings, those of its authors in their place where they are asked for.
std::vector<Assignment> settings_of(const Recipe& recipe, const std::string& values) {
  std::vector<Assignment> all = recipe.settings;
  if (values != "published") return all;
  if (recipe.published.empty()) {
    throw InputError("recipe_values: no authors' values are known for recipe " + recipe.name +
                     "; use tuned");
  }
  all.insert(all.end(), recipe.published.begin(), recipe.published.end());
  return all;
}

// What the preset and the recipe of these settings say; unknown ones are refused later.
std::vector<Assignment> named_sets(const std::vector<Assignment>& settings) {
  std::vector<Assignment> all;
  for (const Preset& p : preset_list()) {
    if (p.name != value_of(settings, "preset")) continue;
    const std::pair<const char*, int64_t> sizes[] = {
        {"n_layer", p.n_layer},       {"n_head", p.n_head},         {"n_embd", p.n_embd},
        {"block_size", p.block_size}, {"batch_size", p.batch_size}, {"vocab_size", p.vocab_size}};
    for (auto [name, value] : sizes) all.push_back({name, fmt::format("{}", value)});
  }
  for (const Recipe& recipe : recipe_list()) {
    if (recipe.name != value_of(settings, "recipe")) continue;
    for (const Assignment& a : settings_of(recipe, value_of(settings, "recipe_values")))
      all.push_back(a);
  }
  return all;
}

constexpr const char* kOwners[] = {"optimizer", "auxiliary", "strategy"};  // of settings

// Without settings of an optimizer, auxiliary or strategy whose place another takes.
std::vector<Assignment> followed_by(std::vector<Assignment> base,
                                    const std::vector<Assignment>& top) {
  for (const std::string owner : kOwners) {
    const std::string before = value_of(base, owner), now = value_of(top, owner);
    if (before.empty() || now.empty() || before == now) continue;
    std::erase_if(base, [&](const Assignment& a) {
      return a.name.starts_with(owner + ".") || (owner == "optimizer" && a.name == "lr");
    });
  }
  base.insert(base.end(), top.begin(), top.end());
  return base;
}

void assign(Config& c, const Assignment& a) {
  std::map<std::string, std::string>* settings[] = {&c.optimizer_options, &c.auxiliary_options,
                                                    &c.strategy_options};
  for (size_t i = 0; i < std::size(kOwners); i++) {
    const std::string prefix = std::string(kOwners[i]) + ".";
    if (!a.name.starts_with(prefix)) continue;
    (*settings[i])[a.name.substr(prefix.size())] = a.value;
    return;
  }
  if (size_t dot = a.name.find('.'); dot != a.name.npos) {
    std::vector<std::string> likely;
    for (const std::string owner : kOwners) likely.push_back(owner + a.name.substr(dot));
    throw InputError(
        fmt::format("{}: no such setting; did you mean '{}'?", a.name, nearest(a.name, likely)));
  }
  if (a.name == "lr")
    c.optimizer_options["lr"] = a.value;
  else
    set_option(c.options(), "", a.name, a.value);
}

// What config.toml cannot keep.
void require_text(Config& c) {
  for (const Option& option : c.options()) {
    auto value = std::get_if<std::string*>(&option.value);
    if (value) check_utf8(**value, option.name);
    if (value && (*value)->find('\0') != std::string::npos)
      throw InputError(option.name + ": holds a zero byte; leave it out");
  }
}

void check_settings(Config& c) {
  require_text(c);
  for (auto [name, folder] : {std::pair{"data", c.data}, {"out", c.out}}) {
    if (folder.empty()) throw InputError(fmt::format("{}: is empty; name a folder", name));
  }
  if (c.recipe == "none" && c.recipe_values != Config{}.recipe_values)
    throw InputError("recipe_values: is of a recipe; name one with --recipe");
  c.partition = text(partition_rule(c.partition));
  settle_ranks(c);
  if (c.batch_size / std::max<int64_t>(1, c.nodes) < c.accumulation) {
    throw InputError(fmt::format(
        "batch_size: {} sequences are too few for {} ranks with {} micro-batches each; at least {}",
        c.batch_size, std::max<int64_t>(1, c.nodes), c.accumulation,
        std::max<int64_t>(1, c.nodes) * c.accumulation));
  }
  make_routes(c);  // checks the optimizers' settings
}

}  // namespace

std::string value_of(const std::vector<Assignment>& settings, const std::string& name,
                     const std::string& otherwise) {
  std::string value = otherwise;
  for (const Assignment& a : settings)
    if (a.name == name) value = a.value;
  return value;
}

std::vector<Assignment> over(std::vector<Assignment> base, const std::vector<Assignment>& top) {
  std::vector<Assignment> anew = top;
  std::erase_if(anew, [&](const Assignment& a) {
    return (a.name == "preset" || a.name == "recipe") && a.value == value_of(base, a.name);
  });
  const std::string values = value_of(top, "recipe_values");
  if (!values.empty() && values != value_of(base, "recipe_values", Config{}.recipe_values))
    anew.push_back({"recipe", value_of(top, "recipe", value_of(base, "recipe"))});
  const std::vector<Assignment> sets = named_sets(anew);
  base = followed_by(std::move(base), sets);
  for (const Assignment& said : sets)  // make_config() puts them in front of all
    std::erase_if(base, [&](const Assignment& a) { return a.name == said.name; });
  return followed_by(std::move(base), top);
}

Config make_config(const std::vector<Assignment>& given) {
  const std::vector<Assignment> all = followed_by(named_sets(given), given);
  Config c;
  try {
    for (const Assignment& a : all) assign(c, a);
    check_settings(c);
  } catch (const InputError& error) {
    const std::string what = error.what();  // "n_layer: .."
    for (auto a = all.rbegin(); a != all.rend(); a++) {
      if (!what.starts_with(a->name + ":")) continue;
      if (a->where.empty()) break;
      throw InputError(a->where + ": " + what);
    }
    throw;
  }
  return c;
}

void for_each_setting(Config c,
                      const std::function<void(const std::string& name, const Option&)>& visit) {
  for (const Option& option : c.options()) visit(option.name, option);
  auto all = [&](const std::string& owner, const std::vector<Option>& options) {
    for (const Option& option : options) visit(owner + "." + option.name, option);
  };
  NamedOptimizer main = configured("optimizer", c.optimizer, c.optimizer_options);
  all("optimizer", all_options(*main.optimizer));
  NamedOptimizer auxiliary = configured_auxiliary(c);
  all("auxiliary", all_options(*auxiliary.optimizer));
  std::unique_ptr<Strategy> strategy = configured_strategy(c);
  all("strategy", strategy->options());
}

std::string comparable(const Option& option) {
  std::string value = option_text(option);
  std::error_code unknown;  // of a folder that is not there
  bool folder = option.name == "data" || option.name == "init_from";
  if (folder && !value.empty()) value = std::filesystem::weakly_canonical(value, unknown).string();
  return value;
}

std::vector<std::string> changes(const Config& began, const Config& now) {
  struct Value {
    std::string shown, compared;
  };
  auto value = [](const Option& option) { return Value{option_text(option), comparable(option)}; };
  std::map<std::string, Value> before;
  for_each_setting(
      began, [&](const std::string& name, const Option& option) { before[name] = value(option); });
  std::vector<std::string> all;
  for_each_setting(now, [&](const std::string& name, const Option& option) {
    auto was = before.find(name);
    if (option.change == Change::free || was == before.end()) return;
    if (was->second.compared != comparable(option))
      all.push_back(fmt::format("{} {} -> {}", name, was->second.shown, option_text(option)));
  });
  return all;
}

GptConfig model_config(const Config& c, int64_t data_vocab_size) {
  int64_t vocabulary = c.vocab_size ? c.vocab_size : data_vocab_size;
  if (vocabulary < data_vocab_size) {
    throw InputError(fmt::format("vocab_size: {} is smaller than the {} tokens of {}", vocabulary,
                                 data_vocab_size, c.data));
  }
  Unary activation;
  if (c.activation != "auto") activation = find_unary("activation", c.activation);
  return {c.n_layer,    c.n_head,        c.n_embd,
          c.block_size, vocabulary,      c.arch == "modern" ? Arch::modern : Arch::gpt2,
          c.bias,       c.checkpointing, data_vocab_size,
          activation};
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
