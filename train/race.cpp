// train/race.cpp - first the rates, on the first seeds; then the rest, at the best rates.
#include "train/race.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>  // memcmp
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tensor/check.h"
#include "train/checkpoint.h"
#include "train/files.h"
#include "train/interrupt.h"
#include "train/log.h"
#include "train/progress.h"
#include "train/significance.h"
#include "train/trainer.h"

namespace murmur {
namespace {

using nlohmann::json;

struct Stopped {};  // thrown and caught in this file

// What may differ between two commands for the same race: none of it changes a result.
bool is_free(const std::string& setting) {
  Config any;
  for (const Option& option : any.options())
    if (option.name == setting) return option.change == Change::free;
  return false;
}
// And what differs between the runs of one race.
const std::set<std::string> kOwn = {"optimizer", "recipe", "seed"};

bool is_compared(const std::string& name) { return !is_free(name); }
bool is_shared(const std::string& name) {
  bool own = name.starts_with("optimizer.") || kOwn.contains(name) || may_be_own(name);
  return is_compared(name) && !own;
}

std::string settings_text(const Config& config, bool (*wanted)(const std::string&)) {
  std::string text;
  for_each_setting(config, [&](const std::string& name, const Option& option) {
    if (wanted(name)) text += fmt::format("{} = {}\n", name, comparable(option));
  });
  return text;
}

// "steps = 100, not steps = 200"; empty where both are the same.
std::string first_difference(const std::string& there, const std::string& wanted) {
  std::istringstream a(there), b(wanted);
  for (std::string x, y;; x = y = "") {
    bool ended = !std::getline(a, x);
    if (!std::getline(b, y) && ended) return "";
    if (x != y) return fmt::format("{}, not {}", x, y);
  }
}

std::string result_path(const Config& config) { return config.out + "/result.json"; }

// Of a run that is done: its log, and what the log does not know.
RunOutcome read_outcome(const Config& config) {
  RunOutcome outcome{.seed = config.seed};
  for (const LogRow& row : read_log(config.out + "/log.jsonl")) {
    outcome.step_ms.push_back(row.step_ms);
    if (row.step == 1) outcome.first_loss = row.train_loss;
    if (row.consensus) outcome.consensus = row.consensus;
    if (!row.node_val_loss.empty()) {
      auto [least, most] = std::minmax_element(row.node_val_loss.begin(), row.node_val_loss.end());
      outcome.node_spread = *most - *least;
    }
    if (!row.val_loss) continue;
    outcome.steps.push_back(double(row.step));
    outcome.losses.push_back(*row.val_loss);
  }
  const std::string path = result_path(config);
  json result = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  bool knows_why =
      result.is_object() && result.contains("diverged") && result["diverged"].is_string();
  if (knows_why) {
    outcome.diverged = result["diverged"].get<std::string>();
    return outcome;
  }
  bool is_whole = result.is_object() && result.contains("state_bytes") &&
                  result["state_bytes"].is_number_integer() && !outcome.steps.empty() &&
                  outcome.steps.back() == double(config.steps);
  if (!is_whole) {
    throw InputError(
        fmt::format("{}: damaged; remove its folder, and the run is trained again", path));
  }
  outcome.state_bytes = result["state_bytes"].get<int64_t>();
  if (std::isfinite(outcome.losses.back()))
    outcome.val_loss = outcome.losses.back();
  else
    outcome.diverged = fmt::format("step {}: the validation loss is not finite", config.steps);
  return outcome;
}

class Race {
 public:
  explicit Race(const RaceOptions& options);
  std::vector<Entrant> run();

 private:
  Config config(const Contender& contender, double rate, int64_t seed) const;
  void refuse_other_settings() const;
  RunOutcome outcome(const Contender& contender, double rate, int64_t seed);
  void remember_settings();
  void train_it(const Config& config, const std::string& title);
  void require_same_start(const std::vector<Entrant>& entrants) const;

  const RaceOptions& options_;
  Config base_;  // of the first contender: what runs share
  int64_t total_runs_, run_ = 0;
  bool remembered_ = false;
  std::optional<Progress> progress_;  // from the first run on that is trained
};

Race::Race(const RaceOptions& options)
    : options_(options),
      base_(
          contender_config(options.shared, options.contenders[0], options.contenders[0].rates[0])) {
  int64_t tunes = int64_t(options.contenders[0].rates.size()) * options.tune_seeds;
  total_runs_ = int64_t(options.contenders.size()) *
                (options.contenders[0].rates.size() > 1 ? tunes + options.seeds - options.tune_seeds
                                                        : options.seeds);
}

Config Race::config(const Contender& contender, double rate, int64_t seed) const {
  Config config = contender_config(options_.shared, contender, rate);
  config.seed = base_.seed + seed;
  config.keep_best = false;  // the last one counts
  config.out = fmt::format("{}/{}/lr{}/seed{}", base_.out, contender.folder, rate, config.seed);
  return config;
}

// Before anything is trained, and of all runs that could become part of this race.
void Race::refuse_other_settings() const {
  const std::string race = base_.out + "/race.toml";
  if (std::filesystem::exists(base_.out + "/config.toml")) {
    throw InputError(
        fmt::format("out: '{}' holds a training run; name another folder for the race", base_.out));
  }
  if (std::filesystem::exists(race)) {
    std::string difference = first_difference(
        settings_text(make_config(read_toml(race)), is_shared), settings_text(base_, is_shared));
    if (!difference.empty()) {
      throw InputError(
          fmt::format("out: '{}' holds a race with {}; name another folder, or set it "
                      "as it was",
                      base_.out, difference));
    }
  }
  for (const Contender& contender : options_.contenders) {
    for (double rate : contender.rates) {
      for (int64_t seed = 0; seed < options_.seeds; seed++) {
        Config wanted = config(contender, rate, seed);
        const std::string path = wanted.out + "/config.toml";
        if (!std::filesystem::exists(path)) continue;
        std::string difference =
            first_difference(settings_text(make_config(read_toml(path)), is_compared),
                             settings_text(wanted, is_compared));
        if (!difference.empty()) {
          throw InputError(fmt::format("'{}' was trained with {}; remove it, or name another --out",
                                       wanted.out, difference));
        }
      }
    }
  }
}

// Once a step was done, not before: settings that cannot work leave nothing behind.
void Race::remember_settings() {
  if (remembered_) return;
  write_file_durably(base_.out + "/race.toml", to_toml(base_, base_.out, is_shared));
  remembered_ = true;
}

void Race::train_it(const Config& config, const std::string& title) {
  int64_t before = (run_ - 1) * config.steps;
  if (!progress_) {
    int64_t done = has_checkpoint(config.out) ? list_checkpoints(config.out).back() : 0;
    progress_.emplace(total_runs_ * config.steps, stdout, is_live_terminal(stdout),
                      config.log_every, before + done);
  }
  progress_->begin(title);
  json result;
  try {
    TrainSummary summary = train(config, /*resume=*/true, {}, [&](const LogRow& row) {
      remember_settings();
      progress_->update(before + row.step, row.train_loss, row.lr, row.tokens_per_s);
    });
    if (summary.end != TrainSummary::done) {
      progress_->finish();
      fmt::print("stopped in {}, after its step {}\n", title, summary.step);
      throw Stopped();
    }
    result["state_bytes"] = summary.state_bytes;
    for (int64_t step : list_checkpoints(config.out)) {  // the last one is enough from now on
      if (step != summary.step) remove_tree(config.out + "/checkpoint/" + checkpoint_name(step));
    }
  } catch (const Diverged& error) {
    result["diverged"] = error.what();
  }
  write_file_durably(result_path(config), result.dump(1) + "\n");
}

RunOutcome Race::outcome(const Contender& contender, double rate, int64_t seed) {
  Config config = this->config(contender, rate, seed);
  std::string title = fmt::format("run {}/{} {} lr {} seed {}", ++run_, total_runs_,
                                  contender.folder, rate, config.seed);
  bool is_new = !std::filesystem::exists(result_path(config));
  if (is_new) train_it(config, title);
  RunOutcome outcome = read_outcome(config);
  if (is_new) {
    progress_->message(fmt::format("{}: {}", title,
                                   outcome.diverged.empty()
                                       ? fmt::format("validation loss {:.4f}", outcome.val_loss)
                                       : "diverged; " + outcome.diverged));
  }
  if (interrupted() && run_ < total_runs_) {
    if (progress_) progress_->finish();
    fmt::print("stopped after run {}/{}\n", run_, total_runs_);
    throw Stopped();
  }
  return outcome;
}

// The first loss of a run comes from its initial weights and its first batch, and from nothing
// else.
void Race::require_same_start(const std::vector<Entrant>& entrants) const {
  std::map<int64_t, std::pair<double, std::string>> first;  // by seed: the loss, and whose it is
  auto look_at = [&](const RunOutcome& run, const std::string& whose) {
    if (!run.first_loss) return;
    auto [known, is_new] = first.try_emplace(run.seed, *run.first_loss, whose);
    const auto& [loss, other] = known->second;
    if (is_new || std::memcmp(&loss, &*run.first_loss, sizeof loss) == 0) return;
    // Several ranks may add their losses up in another order.
    if (base_.nodes > 1 && std::abs(loss - *run.first_loss) < 1e-5 * std::abs(loss)) return;
    throw InputError(
        fmt::format("{}: with seed {} the first loss of {} is {}, that of {} is {}: not the same "
                    "weights and data, so no verdict; race again in another folder",
                    base_.out, run.seed, other, loss, whose, *run.first_loss));
  };
  for (const Entrant& entrant : entrants) {
    for (const Trial& trial : entrant.trials)
      for (const RunOutcome& run : trial.runs) look_at(run, entrant.contender.label);
    for (const RunOutcome& run : entrant.runs) look_at(run, entrant.contender.label);
  }
}

std::vector<Entrant> Race::run() {
  refuse_other_settings();
  std::vector<Entrant> entrants;
  for (const Contender& contender : options_.contenders) {
    Entrant entrant{.contender = contender, .rate = contender.rates[0]};
    if (contender.rates.size() > 1)
      for (double rate : contender.rates) entrant.trials.push_back({rate, {}});
    entrants.push_back(std::move(entrant));
  }
  // Seed by seed, so that contenders take turns: a machine that slows down slows all of them.
  for (int64_t seed = 0; seed < options_.seeds; seed++) {
    for (Entrant& entrant : entrants) {
      bool tunes = seed < options_.tune_seeds && !entrant.trials.empty();
      if (!tunes)
        entrant.runs.push_back(outcome(entrant.contender, entrant.rate, seed));
      else
        for (Trial& trial : entrant.trials)
          trial.runs.push_back(outcome(entrant.contender, trial.rate, seed));
    }
    if (seed + 1 != options_.tune_seeds) continue;
    for (Entrant& entrant : entrants) {
      for (Trial& trial : entrant.trials) {
        for (const RunOutcome& run : trial.runs)
          trial.loss += run.val_loss / double(options_.tune_seeds);
      }
      auto best = std::min_element(entrant.trials.begin(), entrant.trials.end(),
                                   [](const Trial& a, const Trial& b) { return a.loss < b.loss; });
      if (best == entrant.trials.end()) continue;
      entrant.rate = best->rate;
      entrant.runs = best->runs;
    }
  }
  if (progress_) progress_->finish();
  require_same_start(entrants);
  return entrants;
}

}  // namespace

std::optional<std::vector<Entrant>> run_race(const RaceOptions& options) {
  catch_interrupts();
  try {
    return Race(options).run();
  } catch (const Stopped&) {
    return {};
  }
}

}  // namespace murmur
