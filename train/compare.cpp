// train/compare.cpp - from outcomes to standings and verdicts; the compare command.
#include "train/compare.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/bootstrap.h"
#include "tensor/check.h"
#include "train/compare_report.h"
#include "train/files.h"
#include "train/folder_lock.h"
#include "train/interrupt.h"

namespace murmur {
namespace {

constexpr double kLevel = 0.05;
constexpr int64_t kEvaluations = 20;  // over a run, where nobody says how many

// The validations that every seed has, over the seeds.
void fill_curve(const std::vector<RunOutcome>& runs, Standing& standing) {
  for (size_t i = 0; i < runs[0].steps.size(); i++) {
    std::vector<double> losses;
    for (const RunOutcome& run : runs) {
      auto at = std::find(run.steps.begin(), run.steps.end(), runs[0].steps[i]);
      if (at != run.steps.end()) losses.push_back(run.losses[size_t(at - run.steps.begin())]);
    }
    if (losses.size() < runs.size() || !std::isfinite(mean(losses))) continue;
    standing.curve_steps.push_back(runs[0].steps[i]);
    standing.curve.push_back(mean(losses));
    standing.curve_error.push_back(standard_error(losses));
  }
}

// A run that diverges afterwards has lost all the same.
std::optional<int64_t> steps_to(double target, const RunOutcome& run) {
  if (std::isinf(run.val_loss) || !std::isfinite(target)) return {};
  for (size_t i = 0; i < run.steps.size(); i++)
    if (run.losses[i] <= target) return int64_t(run.steps[i]);
  return {};
}

// Per 100 steps, over the last third. Without the last validation: it reads the whole text, the
// others a sample.
double fall_near_end(const std::vector<double>& steps, const std::vector<double>& losses) {
  std::vector<double> x, y;
  for (size_t i = 0; i + 1 < steps.size(); i++) {
    if (steps[i] < steps.back() * 2 / 3) continue;
    x.push_back(steps[i]);
    y.push_back(losses[i]);
  }
  return -100 * slope(x, y);
}

Standing standing_of(const Entrant& entrant) {
  Standing s{.contender = entrant.contender, .rate = entrant.rate, .trials = entrant.trials};
  std::vector<double> step_ms;
  for (const RunOutcome& run : entrant.runs) {
    s.val_loss.push_back(run.val_loss);
    step_ms.insert(step_ms.end(), run.step_ms.begin(), run.step_ms.end());
    if (run.state_bytes) s.state_bytes = run.state_bytes;
    if (run.consensus) s.consensus.push_back(*run.consensus);
    if (run.node_spread) s.node_spread.push_back(*run.node_spread);
  }
  s.mean = mean(s.val_loss);
  s.error = s.diverged() ? NAN : standard_error(s.val_loss);
  s.ms_per_step = median(step_ms);
  s.at_edge =
      !s.trials.empty() && (s.rate == s.trials.front().rate || s.rate == s.trials.back().rate);
  fill_curve(entrant.runs, s);
  s.fall = fall_near_end(s.curve_steps, s.curve);
  return s;
}

void count_steps(double target, const Entrant& entrant, Standing& s) {
  double sum = 0;
  bool all = true;
  for (const RunOutcome& run : entrant.runs) {
    s.steps_to_target.push_back(steps_to(target, run));
    all = all && s.steps_to_target.back();
    sum += double(s.steps_to_target.back().value_or(0));
  }
  if (all) s.mean_steps_to_target = sum / double(entrant.runs.size());
}

Verdict verdict_on(const Standing& first, const Standing& second) {
  bool swap = second.mean < first.mean;
  const Standing &better = swap ? second : first, &worse = swap ? first : second;
  Verdict v{.better = better.contender.label, .worse = worse.contender.label};
  double seeds = double(first.val_loss.size());
  if (worse.diverged()) {
    v.why_not = worse.contender.label + " diverged";
  } else {
    v.test = paired_test(better.val_loss, worse.val_loss);
    double fall = (better.fall + worse.fall) / 2;
    if (fall > 0) v.worth = 100 * v.test.difference / fall;
    v.score = track3_score(v.test.difference, 0, seeds, seeds);
    if (seeds < 2) v.why_not = "one seed";
  }
  if (!v.why_not.empty()) return v;
  v.track3 = v.score >= kTrack3Threshold;
  v.sigma = pooled_deviation({{better.val_loss, worse.val_loss}});
  v.track3_own = v.score >= track3_threshold(v.sigma);
  return v;
}

void refuse_own_settings(const std::vector<Assignment>& settings) {
  for (const auto& [name, value, where] : settings) {
    if (name == "optimizer" || name == "recipe")
      throw InputError(fmt::format("{}: a race has several; --optimizers {},..", name, value));
    if (name != "lr" && !name.starts_with("optimizer.")) continue;
    std::string key = name.substr(name.find('.') + 1);
    throw InputError(
        fmt::format("{}: a contender has its own settings; write them behind its name: "
                    "--optimizers 'name:{}={}', or learning rates for all of them as --lrs 0.5,1,2",
                    name, key, value));
  }
}

bool names(const std::vector<Assignment>& settings, const std::string& name) {
  return std::any_of(settings.begin(), settings.end(),
                     [&](const Assignment& a) { return a.name == name; });
}

}  // namespace

Comparison judge(const Config& config, const std::vector<Entrant>& entrants,
                 std::optional<double> target) {
  Comparison c{.config = config};
  for (const RunOutcome& run : entrants[0].runs) c.seeds.push_back(run.seed);
  for (const Entrant& entrant : entrants) c.standings.push_back(standing_of(entrant));
  const Standing& base = c.standings[0];
  c.target = target.value_or(*std::max_element(base.val_loss.begin(), base.val_loss.end()));
  c.target_from = target ? "--target" : "the highest last loss of " + base.contender.label;
  for (size_t i = 0; i < entrants.size(); i++) count_steps(c.target, entrants[i], c.standings[i]);

  std::vector<size_t> order(entrants.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return c.standings[a].mean < c.standings[b].mean; });
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t i = 1; i < order.size(); i++) pairs.emplace_back(0, i);
  if (order.size() > 2 && order[0] != 0 && order[1] != 0)
    pairs.emplace_back(std::min(order[0], order[1]), std::max(order[0], order[1]));
  for (auto [first, second] : pairs)
    c.verdicts.push_back(verdict_on(c.standings[first], c.standings[second]));
  c.level = kLevel / double(std::max<size_t>(c.verdicts.size(), 1));
  for (Verdict& v : c.verdicts) v.shown = v.why_not.empty() && v.test.p < c.level;
  return c;
}

std::optional<Comparison> race_and_judge(const CompareOptions& options) {
  refuse_own_settings(options.settings);
  if (options.tune_seeds > options.seeds) {
    throw InputError(fmt::format("tune-seeds: {} is more than the {} seeds of the race",
                                 options.tune_seeds, options.seeds));
  }
  if (!options.json.empty()) check_writable("json", options.json);
  RaceOptions race{parse_contenders(options.optimizers, options.lrs), options.settings,
                   options.seeds, options.tune_seeds, options.train};
  Config config = make_config(options.settings);
  if (!names(options.settings, "eval_every")) {
    config.eval_every = std::max<int64_t>(config.steps / kEvaluations, 1);
    race.shared.emplace_back("eval_every", std::to_string(config.eval_every));
  }
  std::optional<std::vector<Entrant>> entrants = run_race(race);
  if (!entrants) return {};
  return judge(config, *entrants, options.target);
}

int compare(const CompareOptions& options) {
  FolderLock lock;
  lock.take(make_config(options.settings).out);
  std::optional<Comparison> comparison = race_and_judge(options);
  if (!comparison) {
    fmt::print("the same command goes on\n");
    return interrupted() ? kInterruptedCode : 0;
  }
  report(*comparison, options.json);
  return 0;
}

}  // namespace murmur
