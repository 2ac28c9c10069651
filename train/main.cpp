// train/main.cpp - the murmur command: flags in, one function called, an exit code out.
//
//   0 done      2 the user's input is wrong (one line on stderr)      1 anything else
//   130 train or compare was stopped by a signal, and has saved all: --resume, or the same command,
//       goes on
#include <fcntl.h>
#include <fmt/format.h>
#include <omp.h>
#include <sys/resource.h>  // RLIMIT_NOFILE
#include <unistd.h>        // execv

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <utility>

#include "dist/bootstrap.h"
#include "dist/launch.h"
#include "optim/registry.h"
#include "tensor/nearest.h"
#include "train/bench.h"
#include "train/bench_dist.h"
#include "train/bench_mixing.h"
#include "train/compare.h"
#include "train/compare_over.h"
#include "train/config.h"
#include "train/crew.h"
#include "train/data.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/graph.h"
#include "train/identity.h"
#include "train/interrupt.h"
#include "train/list.h"
#include "train/partition.h"
#include "train/prepare.h"
#include "train/progress.h"
#include "train/revision.h"
#include "train/run.h"
#include "train/sample.h"
#include "train/synthetic.h"
#include "train/tokenizer.h"
#include "train/trainer.h"

using namespace murmur;

namespace {

// Of a file or folder: "" would be the root of the disk, because names are put behind it.
const CLI::Validator kPath(
    [](std::string& text) {
      return text.empty() ? std::string("is empty; name a file or folder") : std::string();
    },
    "");

// The flags of a configuration: one per field of Config, and the settings of every optimizer under
// `optimizer.` and `auxiliary.`. Values stay text until make_config() has seen all of them.
class ConfigFlags {
 public:
  explicit ConfigFlags(CLI::App& command) : command_(command) {
    command.add_option("--config", file_, "TOML file; flags win over it")
        ->type_name("FILE")
        ->check(kPath);
    Config defaults;  // the options point into it
    for (const Option& option : defaults.options()) add(option.name, option, "Settings");
    for (const char* owner : {"optimizer", "auxiliary"}) {
      for (const OptimizerEntry& entry : optimizer_list()) {
        auto optimizer = entry.make();
        for (const Option& option : all_options(*optimizer))
          add(std::string(owner) + "." + option.name, option, "Settings of the optimizers");
      }
    }
    for (const StrategyEntry& entry : strategy_list()) {
      auto strategy = entry.make();
      for (const Option& option : strategy->options())
        add("strategy." + option.name, option, "Settings of the strategies");
    }
  }

  // `base`: what file and flags win over.
  Config config(std::vector<Assignment> base = {}) const {
    return make_config(assignments(std::move(base)));
  }
  std::vector<Assignment> assignments(std::vector<Assignment> base) const {
    if (!file_.empty()) base = over(std::move(base), read_toml(file_));
    std::vector<Assignment> flags;
    for (const auto& [name, value] : values_) {
      if (given(name)) flags.push_back({name, value});
    }
    return over(std::move(base), flags);
  }
  bool given(const std::string& name) const { return command_.count("--" + name) > 0; }

 private:
  void add(const std::string& name, const Option& option, const std::string& group) {
    if (values_.count(name)) return;  // several optimizers share a setting's name
    std::string dashed = name;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    std::string flags = "--" + dashed + (dashed == name ? "" : ",--" + name);
    if (name == "optimizer.lr") flags += ",--lr";
    CLI::Option* flag = command_.add_option(flags, values_[name], option.summary)
                            ->type_name(option_kind(option))
                            ->group(group);
    if (group == "Settings") flag->default_str(option_text(option));
  }

  CLI::App& command_;
  std::string file_;
  std::map<std::string, std::string> values_;
};

std::string tokenizer_of(const std::string& folder) { return folder + "/tokenizer.json"; }

// What --resume-from and --step take: "900", "step-00000900" or "best"; empty: none.
std::optional<int64_t> step_from(const std::string& flag, const std::string& text) {
  if (text.empty()) return {};
  if (text == "best") return kBestStep;
  std::optional<int64_t> step = checkpoint_step(text);
  if (!step) step = checkpoint_step("step-" + text);
  if (!step)
    throw InputError(flag + ": '" + text + "' is no step; write 900, step-00000900 or best");
  return step;
}

// config.toml of the run that `flags` want to go on with; none where there is no such run.
std::vector<Assignment> saved_settings(const std::vector<Assignment>& flags) {
  std::string out = value_of(flags, "out"),
              path = (out.empty() ? Config{}.out : out) + "/config.toml";
  if (!path_exists(path)) return {};
  std::vector<Assignment> saved = read_toml(path);
  // Who names another number of ranks, transport or strategy, or starts several processes, gets
  // these anew. The strategy stays where it can: `local` is for one rank.
  auto named = [&](const std::string& key) { return !value_of(flags, key).empty(); };
  bool launched = launched_by().size > 1;
  bool strategy =
      named("strategy") || ((named("nodes") || launched) && value_of(saved, "strategy") == "local");
  std::erase_if(saved, [&](const Assignment& a) {
    bool of_strategy = a.name == "strategy" || a.name.starts_with("strategy.");
    bool of_ranks = a.name == "nodes" || a.name == "transport";
    bool ranks = named("nodes") || named("transport") || strategy || launched;
    bool renamed = a.name == "recipe" && named("strategy");  // settings of its own stay
    return (of_strategy && strategy) || (of_ranks && ranks) || renamed;
  });
  Config defaults;
  for (const Option& option : defaults.options()) {
    if (option.change != Change::refused) continue;
    std::string began = value_of(saved, option.name, option_text(option)),
                wanted = value_of(flags, option.name);
    if (wanted.empty() || wanted == began) continue;
    throw InputError(fmt::format(
        "{}: the run of '{}' began with {}, not {}; resume without it, or start another run",
        option.name, path, began.empty() ? "none" : began, wanted));
  }
  return saved;
}

// The model of the run whose weights `flags` want to begin with.
std::vector<Assignment> model_to_begin_with(const std::vector<Assignment>& flags) {
  std::vector<Assignment> model;
  const Identity of_model = model_identity({});
  std::string folder = value_of(flags, "init_from"),
              path = folder.empty() ? "" : run_of_weights(folder) + "/config.toml";
  if (!path_exists(path)) return model;
  for (const Assignment& a : read_toml(path))
    if (of_model.contains(a.name)) model.push_back(a);
  return model;
}

// What `data info` prints; of `config` the partition, nodes, seed and block size count.
void show_data(const std::string& folder, const Config& config) {
  fmt::print("{}", text(describe_data(folder)));
  const PartitionRule rule = partition_rule(config.partition);
  if (rule.kind == PartitionRule::iid) return;
  const Partition partition(Dataset(folder), rule, config.nodes, uint64_t(config.seed),
                            config.block_size);
  fmt::print("\n{}\n{}", partition.summary(), partition.table());
}

// A number from `low` on; CLI11's own check prints the largest double in full.
CLI::Validator at_least(double low, double high = INFINITY) {
  auto refuse = [=](std::string& text) {
    double value = 0;
    bool fits = CLI::detail::lexical_cast(text, value) && value >= low && value <= high &&
                std::isfinite(value);
    if (fits) return std::string();
    return fmt::format("'{}' is not a number from {} {}", text, low,
                       std::isfinite(high) ? fmt::format("to {}", high) : "up");
  };
  return CLI::Validator(refuse, "");
}
constexpr double kMostSeeds = 1000;

void add_synthetic_flags(CLI::App& command, SyntheticOptions& o) {
  auto list = [&](const char* flag, auto& values, const char* summary) {
    return command.add_option(flag, values, summary)
        ->delimiter(',')
        ->trigger_on_parse()
        ->type_name("LIST")
        ->capture_default_str();
  };
  auto value = [&](const char* flag, auto& value, const char* summary) {
    return command.add_option(flag, value, summary)->capture_default_str();
  };
  Landscape& l = o.problem.landscape;
  list("--recipes", o.recipes,
       "who takes part; see murmur list recipes; each perhaps with settings of its own, as in "
       "'demuon:strategy=gossip;optimizer.momentum=0.8'");
  list("--lrs", o.factors, "learning rates to tune over, as factors of each recipe's")
      ->check(at_least(1e-12, 1e12));
  value("--seeds", o.seeds, "how many runs each: seed, seed + 1, ..")
      ->check(at_least(1, kMostSeeds));
  value("--objective", o.problem.objective, "see murmur list objectives");
  value("--rows", l.rows, "of the matrix")->check(at_least(1, 4096));
  value("--cols", l.cols, "of the matrix")->check(at_least(1, 4096));
  value("--condition", l.condition, "of a node's function")->check(at_least(1, 1e12));
  value("--heterogeneity", l.heterogeneity, "of the nodes' functions; 0: all the same")
      ->check(at_least(0, 1e6));
  value("--noise", o.problem.noise, "see murmur list noises");
  value("--noise-scale", o.problem.noise_scale, "of every entry")->check(at_least(0, 1e12));
  command.add_flag("--rates", o.rates,
                   "the learning rate and momentum of the theory at several horizons, and how the "
                   "mean stationarity falls");
  list("--horizons", o.horizons, "steps of the runs of --rates")->check(at_least(1, 1e9));
  command.add_option("--json", o.json, "the results once more, as JSON")
      ->type_name("FILE")
      ->check(kPath);
}

// A new line, as before the first word of a text; or what the alphabet begins with.
std::string usual_prompt(const Tokenizer& tokenizer) {
  try {
    tokenizer.encode("\n");
    return "\n";
  } catch (const InputError&) {
    return tokenizer.token(0);
  }
}

void run_sample(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node,
                const std::optional<std::string>& given, const SampleOptions& wanted,
                int64_t samples) {
  Run run = open_run(folder, step, node);
  auto tokenizer = load_tokenizer(tokenizer_of(folder));
  SampleOptions options = wanted;
  const std::string prompt = given ? *given : usual_prompt(*tokenizer);
  std::vector<int32_t> start;
  for (uint16_t id : tokenizer->encode(prompt)) start.push_back(id);
  if (start.empty()) throw InputError("prompt: is empty; give at least one character");
  for (int64_t i = 0; i < samples; i++, options.seed++) {
    Utf8Stream stream;
    std::string text = prompt;  // not yet printed
    sample(run.model->gpt, start, options, [&](int32_t id) {
      fmt::print("{}{}", std::exchange(text, ""), stream.push(tokenizer->token(id)));
      std::fflush(stdout);
    });
    fmt::print("{}{}\n{}", text, stream.finish(), i + 1 < samples ? "\n---\n\n" : "");
  }
}

void run_eval(const std::string& folder, std::optional<int64_t> step, std::optional<int64_t> node,
              const std::string& data_folder, bool json) {
  Run run = open_run(folder, step, node);
  Dataset data(data_folder.empty() ? run.config.data : data_folder);
  int64_t vocabulary = run.model->gpt.vocabulary();
  if (data.vocab_size() > vocabulary) {
    throw InputError(fmt::format(
        "data: '{}' has {} different tokens, the model of '{}' knows {}; name the data it was "
        "trained on, or data of the same tokenizer",
        data.dir(), data.vocab_size(), folder, vocabulary));
  }
  require_same(run.began_with, {{"tokenizer", tokenizer_digest(data.tokenizer_path())}}, folder,
               "name data of the same tokenizer");
  if (data_folder.empty()) {
    require_same(run.began_with, {{"data", data_digest(data)}}, folder,
                 fmt::format("name it to look at it all the same: --data '{}'", data.dir()));
  }
  std::optional<ValidationProgress> progress(stderr);
  auto show = [&](int64_t done, int64_t total) { return progress->update(done, total), true; };
  Evaluation e = *evaluate(run.model->gpt, data, run.config.batch_size, {.go_on = show});
  progress.reset();
  check(std::isfinite(e.loss), [&] {
    return fmt::format(
        "eval: the loss is {}: the weights of '{}' have diverged; take an earlier checkpoint with "
        "--step",
        e.loss, folder);
  });
  if (json) {
    fmt::print("{{\"step\": {}, \"val_loss\": {}, \"bits_per_byte\": {}, \"targets\": {}}}\n",
               run.step, e.loss, e.bits_per_byte ? fmt::format("{}", *e.bits_per_byte) : "null",
               e.targets);
  } else {
    fmt::print("{} at step {}: validation loss {:.4f} nats per token{} over {} tokens\n", folder,
               run.step, e.loss,
               e.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *e.bits_per_byte) : "",
               e.targets);
  }
}

// CLI11's message, in one line; an unknown flag or command names the nearest known one.
std::string usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands()[0];
  std::vector<std::string> known;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  std::vector<std::string> commands;
  for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(sub->get_name());
  std::vector<std::string> words = app.remaining(true);
  if (!commands.empty() && !words.empty() && words[0][0] != '-') {
    return fmt::format("'{}': no such command; did you mean '{}'?", words[0],
                       nearest(words[0], commands));
  }
  if (!commands.empty() && words.empty())
    return fmt::format("a command is missing; one of: {}", fmt::join(commands, ", "));
  if (dynamic_cast<const CLI::ExtrasError*>(&error) || !commands.empty()) {
    for (int i = 1; i < argc; i++) {
      std::string word = argv[i], name = word.substr(0, word.find('='));
      bool is_flag = name.rfind("--", 0) == 0;
      bool known_flag = std::find(known.begin(), known.end(), name) != known.end();
      if (is_flag && !known_flag)
        return fmt::format("{}: no such flag; did you mean {}?", name, nearest(name, known));
    }
    std::vector<std::string> left = command->remaining(true);
    if (!left.empty())
      return fmt::format("'{}': not understood; did you mean {}? (murmur {} --help)", left[0],
                         nearest(left[0], known), command->get_name());
  }
  std::string text = error.what(), where = "murmur";
  for (const CLI::App* at = &app; at != command; where += " " + at->get_name())
    at = at->get_subcommands()[0];
  return fmt::format("{}; see {} --help", text.substr(0, text.find('\n')), where);
}

// Flags that CLI11 refuses, on every rank alike.
struct UsageError : InputError {
  using InputError::InputError;
};

// The words after `--` of `murmur launch .. -- WORDS`, taken away before CLI11 sees them: they are
// the flags of another process.
std::vector<std::string> take_command_to_launch(int& argc, char** argv) {
  std::vector<std::string> words;
  if (argc < 2 || std::string(argv[1]) != "launch") return words;
  for (int i = 2; i < argc; i++) {
    if (std::string(argv[i]) != "--") continue;
    words.assign(argv + i + 1, argv + argc);
    argc = i;
  }
  return words;
}

// Commands whose processes may be the ranks of a run.
bool takes_ranks(const std::string& command) { return command == "train" || command == "compare"; }

// Where this process was started as one rank of several; a broken contract is the transport's to
// report.
Launched place() {
  try {
    return launched_by();
  } catch (const InputError&) {
    return {};
  }
}

// What carries the messages of processes with these settings, where none of them runs yet.
std::string transport_to_launch(const std::vector<Assignment>& given,
                                const std::vector<Assignment>& saved = {}) {
  std::string named = value_of(given, "transport");
  if (named == "threads" || named == "self") {
    throw InputError(fmt::format(
        "launch: transport {} is one process; leave murmur launch out, or use mpi or nccl", named));
  }
  bool nccl = named == "nccl" || (named.empty() && value_of(saved, "transport") == "nccl");
  std::vector<Assignment> all = over(saved, given);
  all.push_back({"transport", nccl ? "nccl" : "mpi"});
  make_config(all);  // what is wrong is said once, before there are ranks
  return all.back().value;
}

int run(int argc, char** argv, std::string* to_launch_by = nullptr);

// Starts the ranks of a command line.
int run_launch(int64_t ranks, const std::string& hosts, bool survive,
               const std::vector<std::string>& words) {
  if (words.empty())
    throw InputError("launch: nothing to start; write murmur launch -n 4 -- train ..");
  if (!takes_ranks(words[0])) {
    throw InputError(fmt::format(
        "launch: '{}' has no ranks; train and compare have: murmur launch -n 4 -- train ..",
        words[0]));
  }
  std::vector<char*> argv = {const_cast<char*>("murmur")};
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::string transport;
  int code = run(int(argv.size()) - 1, argv.data(), &transport);
  if (transport.empty()) return code;  // --help
  return launch(ranks, transport, hosts, survive, words);
}

// With `to_launch_by` nothing is run: it becomes the transport of train or compare.
int run(int argc, char** argv, std::string* to_launch_by) {
  int code = 0;
  std::vector<std::string> to_launch = take_command_to_launch(argc, argv);
  CLI::App app("Murmur: a GPT training stack to read, and to use.", "murmur");
  app.require_subcommand(1);
  // Scripts override defaults: of a flag that is given twice the last one counts. Lists want
  // trigger_on_parse() for that, or they would be joined.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.set_version_flag("--version", revision());

  CLI::App* train_command = app.add_subcommand("train", "train a model and write a run folder");
  ConfigFlags train_flags(*train_command);
  bool resume = false;
  train_command->add_flag("--resume", resume,
                          "go on from the newest checkpoint of --out, with its configuration");
  std::string resume_from, step;
  train_command
      ->add_option("--resume-from", resume_from,
                   "go on from an earlier checkpoint of --out; what came after it is dropped")
      ->type_name("STEP");
  train_command->callback([&] {
    std::optional<int64_t> from = step_from("--resume-from", resume_from);
    if (from) resume = true;
    std::vector<Assignment> flags = train_flags.assignments({});
    std::vector<Assignment> base = resume ? saved_settings(flags) : std::vector<Assignment>();
    if (base.empty()) base = model_to_begin_with(flags);
    if (to_launch_by) {
      *to_launch_by = transport_to_launch(flags, base);
      return;
    }
    TrainSummary summary = train(train_flags.config(base), resume, from);
    if (summary.end == TrainSummary::interrupted) code = kInterruptedCode;
  });

  CLI::App* compare_command = app.add_subcommand(
      "compare", "a race between optimizers: same weights, same data; the same command goes on");
  CompareOptions race;
  ConfigFlags race_flags(*compare_command);
  compare_command
      ->add_option("--optimizers", race.optimizers,
                   "who takes part: names, each perhaps with settings of its own, as in "
                   "'adamw,muon:momentum=0.9;lr=0.01|0.02'")
      ->type_name("LIST")
      ->capture_default_str();
  compare_command->add_option("--seeds", race.seeds, "how many runs each: seed, seed + 1, ..")
      ->capture_default_str()
      ->check(at_least(1, kMostSeeds));
  compare_command
      ->add_option("--lrs", race.lrs,
                   "learning rates to tune over, as factors of each optimizer's default: 0.5,1,2")
      ->type_name("LIST");
  compare_command->add_option("--tune-seeds", race.tune_seeds, "seeds on which rates are tried")
      ->capture_default_str()
      ->check(at_least(1, kMostSeeds));
  double target = 0;
  compare_command
      ->add_option("--target", target,
                   "validation loss to count steps to; the first contender's highest last loss "
                   "when left out")
      ->check(at_least(0));
  compare_command->add_option("--json", race.json, "the results once more, as JSON")
      ->type_name("FILE")
      ->check(kPath);
  std::string over;
  bool paper = false;
  compare_command
      ->add_option("--over", over,
                   "the same race in every combination of settings, as in "
                   "'topology=ring,complete;partition=iid,by-document'")
      ->type_name("LIST");
  compare_command->add_flag("--paper-setup", paper,
                            "the experiment of DeMuon's authors: model, batch, rates and schedules "
                            "of their code for --topology");
  compare_command->callback([&] {
    std::vector<Assignment> base = model_to_begin_with(race_flags.assignments({}));
    base.push_back({"out", "runs/compare"});
    race.settings = race_flags.assignments(base);
    if (race_flags.given("target")) race.target = target;
    if (to_launch_by) {
      *to_launch_by = transport_to_launch(race.settings);
      return;
    }
    std::string said = paper ? paper_setup(race) : "";
    code = with_crew(make_config(race.settings), [&](const TrainRun& train, int ranks) {
      fmt::print("{}", said);
      race.train = train;
      if (ranks > 0) race.settings.push_back({"nodes", std::to_string(ranks)});
      return over.empty() ? compare(race) : compare_over(race, over);
    });
  });

  CLI::App* synthetic_command = app.add_subcommand(
      "synthetic",
      "decentralised methods on made-up functions with heavy-tailed noise: races, rates of theory");
  SyntheticOptions suite;
  ConfigFlags suite_flags(*synthetic_command);
  add_synthetic_flags(*synthetic_command, suite);
  synthetic_command->callback([&] {
    suite.settings = suite_flags.assignments({{"out", "runs/synthetic"},
                                              {"nodes", "8"},
                                              {"steps", "4096"},
                                              {"schedule", "constant"},
                                              {"warmup", "0"}});
    synthetic(suite);
  });

  constexpr const char* kWhichStep = "of which checkpoint: 900, or best; the newest when left out";
  constexpr const char* kWhichNode = "weights of which node; the mean of all when left out";
  std::optional<int64_t> node;
  std::string folder, data_folder;
  std::optional<std::string> prompt;
  SampleOptions sampling;
  int64_t samples = 1;
  bool json = false;
  CLI::App* sample_command = app.add_subcommand("sample", "write text with a trained model");
  sample_command->add_option("run", folder, "run folder")->required()->check(kPath);
  sample_command->add_option("--step", step, kWhichStep)->type_name("STEP");
  sample_command->add_option("--node", node, kWhichNode)->check(at_least(0));
  sample_command->add_option("--prompt", prompt, "text to continue");
  sample_command->add_option("--tokens", sampling.tokens, "new tokens")
      ->capture_default_str()
      ->check(at_least(0));
  sample_command
      ->add_option("--temperature", sampling.temperature, "0: always the most likely token")
      ->capture_default_str()
      ->check(at_least(0));
  sample_command->add_option("--top-k", sampling.top_k, "only the k most likely tokens; 0: all")
      ->capture_default_str()
      ->check(at_least(0));
  sample_command->add_option("--seed", sampling.seed, "of the draws")
      ->capture_default_str()
      ->check(at_least(0));
  sample_command->add_option("--samples", samples, "how many")
      ->capture_default_str()
      ->check(at_least(1));
  sample_command->callback(
      [&] { run_sample(folder, step_from("--step", step), node, prompt, sampling, samples); });

  CLI::App* eval_command = app.add_subcommand("eval", "validation loss of a trained model");
  eval_command->add_option("run", folder, "run folder")->required()->check(kPath);
  eval_command->add_option("--step", step, kWhichStep)->type_name("STEP");
  eval_command->add_option("--node", node, kWhichNode)->check(at_least(0));
  eval_command->add_option("--data", data_folder, "another data folder")->check(kPath);
  eval_command->add_flag("--json", json, "machine-readable");
  eval_command->callback(
      [&] { run_eval(folder, step_from("--step", step), node, data_folder, json); });

  CLI::App* export_command = app.add_subcommand(
      "export", "a run's weights as a folder of their own: the mean of all nodes, or one node's");
  std::string export_to;
  export_command->add_option("run", folder, "run folder")->required()->check(kPath);
  export_command->add_option("--out", export_to, "folder to write")->required()->check(kPath);
  export_command->add_option("--step", step, kWhichStep)->type_name("STEP");
  export_command->add_option("--node", node, kWhichNode)->check(at_least(0));
  export_command->callback([&] {
    export_run(folder, step_from("--step", step), node, export_to);
    fmt::print("{}: weights of step {}, for sample and eval\n", export_to,
               open_run(export_to).step);
  });

  CLI::App* data_command = app.add_subcommand("data", "prepare and describe data folders");
  data_command->require_subcommand(1);
  std::vector<std::string> files;
  std::string tokenizer = "byte", out;
  double val_fraction = 0.05;
  CLI::App* prepare = data_command->add_subcommand("prepare", "text files to token files");
  prepare->add_option("files", files, "UTF-8 text")->required()->check(kPath);
  prepare->add_option("--tokenizer", tokenizer, "see murmur list tokenizers")
      ->capture_default_str();
  prepare->add_option("--out", out, "data folder")->required()->check(kPath);
  prepare
      ->add_option("--val-fraction", val_fraction,
                   "share of the text, from its end, for validation")
      ->capture_default_str();
  prepare->callback(
      [&] { fmt::print("{}", text(prepare_data(files, tokenizer, out, val_fraction))); });
  CLI::App* info = data_command->add_subcommand("info", "what a data folder holds");
  info->add_option("dir", folder, "data folder")->required()->check(kPath);
  Config dealt;
  dealt.nodes = 4;
  info->add_option("--partition", dealt.partition,
                   "show how this deals the text out: by-document or dirichlet:ALPHA");
  info->add_option("--nodes", dealt.nodes, "to so many nodes")
      ->capture_default_str()
      ->check(at_least(1, 4096));
  info->add_option("--seed", dealt.seed, "of the run")->capture_default_str()->check(at_least(0));
  info->add_option("--block-size", dealt.block_size, "of the run")
      ->capture_default_str()
      ->check(at_least(1));
  info->callback([&] { show_data(folder, dealt); });

  CLI::App* graph_command = app.add_subcommand(
      "graph", "a topology: who hears whom with which weight, how fast that mixes, what it sends");
  GraphRequest graph;
  std::map<std::string, std::string> graph_settings;
  for (const Option& option : graph.topology.options()) {
    std::string dashed = option.name;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    if (std::holds_alternative<bool*>(option.value)) {
      graph_command->add_flag("--" + dashed, *std::get<bool*>(option.value), option.summary);
    } else {
      graph_command->add_option("--" + dashed, graph_settings[option.name], option.summary)
          ->type_name(option.choices.empty() ? option_kind(option) : "NAME")
          ->default_str(option_text(option));
    }
  }
  graph_command->add_option("--nodes", graph.nodes, "how many")
      ->capture_default_str()
      ->check(at_least(1, 4096));
  graph_command->add_option("--wire", graph.wire, "how values travel: fp32, bf16 or int8")
      ->capture_default_str();
  graph_command->add_option("--preset", graph.preset, "whose parameters are sent")
      ->capture_default_str();
  graph_command->add_option("--out", out, "a picture: the graph, and how averaging goes on it")
      ->type_name("FILE.png")
      ->check(kPath);
  graph_command->add_flag("--json", json, "machine-readable");
  graph_command->callback([&] {
    for (const auto& [name, value] : graph_settings) {
      if (!value.empty()) set_option(graph.topology.options(), "", name, value);
    }
    ExaminedGraph examined = examine(graph);
    fmt::print("{}", json ? graph_json(examined) : graph_text(examined));
    if (!out.empty()) draw_graph(examined, out);
  });

  CLI::App* list_command =
      app.add_subcommand("list", "every list: " + fmt::format("{}", fmt::join(list_kinds(), ", ")));
  std::string kind;
  list_command->add_option("kind", kind, "which list")->required();
  list_command->add_flag("--json", json, "an array of objects");
  list_command->callback(
      [&] { fmt::print("{}", json ? to_json(list_table(kind)) : to_markdown(list_table(kind))); });

  CLI::App* bench_command = app.add_subcommand("bench", "measure this machine");
  bench_command->require_subcommand(1);
  CLI::App* bench_step_command =
      bench_command->add_subcommand("step", "whole training steps, as JSON");
  ConfigFlags bench_flags(*bench_step_command);
  bench_step_command->add_flag("--json", json, "JSON is the only output; accepted for scripts");
  bench_step_command->callback([&] {
    Config config = bench_flags.config({{"optimizer", "adamw"}});
    fmt::print("{}", bench_step(config, bench_flags.given("steps") ? config.steps : 20));
  });
  CLI::App* bench_ops_command = bench_command->add_subcommand(
      "ops", "elementwise ops, softmax, norms and products of a layer, as JSON");
  ConfigFlags ops_flags(*bench_ops_command);
  bench_ops_command->add_flag("--json", json, "JSON is the only output; accepted for scripts");
  bench_ops_command->callback([&] { fmt::print("{}", bench_ops(ops_flags.config())); });

  CLI::App* bench_optimizers_command = bench_command->add_subcommand(
      "optimizers", "one update of a preset's matrices by every optimizer, as JSON");
  ConfigFlags optimizers_flags(*bench_optimizers_command);
  std::string contenders;
  bench_optimizers_command
      ->add_option("--optimizers", contenders, "only these, as in 'adamw,muon:ns_dtype=bf16'")
      ->type_name("LIST");
  bench_optimizers_command->add_flag("--json", json,
                                     "JSON is the only output; accepted for scripts");
  bench_optimizers_command->callback(
      [&] { fmt::print("{}", bench_optimizers(optimizers_flags.assignments({}), contenders)); });

  CLI::App* bench_dist_command = bench_command->add_subcommand(
      "dist",
      "every strategy on several ranks: traffic, memory and work of a step, counted on threads and "
      "foreseen on networks, as JSON");
  ConfigFlags dist_flags(*bench_dist_command);
  DistBench dist;
  bench_dist_command
      ->add_option("--counts", dist.counts, "ranks to run, as threads; with --nodes N: N; 0: none")
      ->delimiter(',')
      ->trigger_on_parse()
      ->type_name("LIST")
      ->capture_default_str()
      ->check(at_least(0, 64));
  bench_dist_command->add_option("--plan", dist.plan, "ranks to foresee")
      ->delimiter(',')
      ->trigger_on_parse()
      ->type_name("LIST")
      ->capture_default_str()
      ->check(at_least(1, 65536));
  bench_dist_command
      ->add_option("--networks", dist.networks,
                   "to foresee them on; see murmur list networks; all of them when left out")
      ->delimiter(',')
      ->trigger_on_parse()
      ->type_name("LIST");
  bench_dist_command
      ->add_option("--tflops", dist.tflops,
                   "of orthogonalisation; that of an fp32 product here when left out")
      ->check(at_least(1e-6));
  bench_dist_command->add_flag("--json", json, "JSON is the only output; accepted for scripts");
  bench_dist_command->callback([&] {
    // Every strategy can run on a lazy graph; what is sent is the same on both.
    Config config = dist_flags.config({{"lazy_weights", "true"}});
    bool counts_given = bench_dist_command->count("--counts") > 0;
    if (config.nodes > 0 && !counts_given) dist.counts = {config.nodes};
    fmt::print("{}", bench_dist(config, dist));
  });

  CLI::App* bench_mixing_command = bench_command->add_subcommand(
      "mixing", "mixing with neighbours beside this machine's memory, as JSON");
  MixingBench mixing;
  bench_mixing_command->add_option("--threads", mixing.threads, "all when left out")
      ->check(at_least(1, 4096));
  bench_mixing_command
      ->add_option("--mib", mixing.mib,
                   "memory to work in; four times the last cache when left out")
      ->check(at_least(1, 1 << 20));
  bench_mixing_command->add_option("--rounds", mixing.rounds, "of which medians are printed")
      ->capture_default_str()
      ->check(at_least(1, 1000));
  bench_mixing_command->add_flag("--json", json, "JSON is the only output; accepted for scripts");
  bench_mixing_command->callback([&] { fmt::print("{}", bench_mixing(mixing)); });

  CLI::App* launch_command = app.add_subcommand(
      "launch", "start the ranks of a run: murmur launch -n 4 -- train --preset nano ..");
  int64_t ranks = 0;
  std::string hosts;
  launch_command->add_option("-n,--ranks", ranks, "how many processes")->required();
  launch_command->add_option("--hosts", hosts, "hosts to start them on, as mpirun's --hostfile")
      ->type_name("FILE")
      ->check(kPath);
  bool survive = false;
  launch_command->add_flag("--survive", survive,
                           "where a rank dies the others go on; for strategies that go by a graph");
  launch_command->callback([&] { code = run_launch(ranks, hosts, survive, to_launch); });

  std::string command = argc > 1 ? argv[1] : "";
  bool known =
      !app.get_subcommands([&](const CLI::App* c) { return c->get_name() == command; }).empty();
  if (Launched me = place(); me.size > 1 && known && !takes_ranks(command)) {
    throw InputError(
        fmt::format("{0}: {1} has started {2} processes, and each would do the same; start "
                    "murmur {0} by itself",
                    command, me.source, me.size));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    throw UsageError(usage_error(app, error, argc, argv));
  }
  return code;
}

}  // namespace

// GNU OpenMP's threads wait for work by spinning for milliseconds. That is right on an idle machine
// and ruinous where something else wants a core: 2.7k instead of 15k tokens/s beside one busy
// process. The library reads its settings before main(), so the program starts itself once more.
static void wait_politely(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "3000", 1);
  execv("/proc/self/exe", argv);  // returns only where it is not possible: then as it was
}

// A stream that the caller has closed would be the number of the next file that is opened, and its
// text would land in there.
static void open_standard_streams() {
  for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) return;
  }
}

// Every rank that is a thread keeps its shards open.
static void allow_many_files() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = std::max(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 65536));
  setrlimit(RLIMIT_NOFILE, &files);
}

// Everything that was printed has arrived, or the command has failed.
static int with_output(int code) {
  bool lost = std::ferror(stdout) != 0;
  errno = 0;
  if (std::fclose(stdout) == 0 && !lost) return tell_launcher(code);
  Launched me = place();
  std::string why = errno ? fmt::format(": {}", std::strerror(errno)) : "";
  complain(Error("standard output: not all of it could be written" + why), me.rank, me.size);
  return code ? code : 1;
}

int main(int argc, char** argv) {
  open_standard_streams();
  wait_politely(argv);
  allow_many_files();
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit (ulimit -f) is an error like a full disk
  try {
    return with_output(run(argc, argv));
  } catch (const UsageError& error) {
    Launched me = place();
    if (me.rank == 0) return complain(error, 0, me.size);
    let_rank_0_speak();
    return tell_launcher(2);
  } catch (const std::bad_alloc&) {
    Launched me = place();
    return complain(Error("memory: this machine has too little; use a smaller model or batch"),
                    me.rank, me.size);
  } catch (const std::exception& error) {
    Launched me = place();
    if (std::ferror(stdout)) return with_output(1);
    return complain(error, me.rank, me.size);
  }
}
