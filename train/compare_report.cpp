// train/compare_report.cpp - the tables are made once; terminal and Markdown show the same ones.
#include "train/compare_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/files.h"
#include "train/list.h"
#include "train/plot.h"

namespace murmur {
namespace {

std::string number(double value, const char* format = "{:.4f}") {
  return std::isnan(value) ? "-" : fmt::format(fmt::runtime(format), value);
}

std::string loss_text(double loss) { return std::isinf(loss) ? "diverged" : number(loss); }

std::string bytes_text(std::optional<int64_t> bytes) {
  if (!bytes) return "-";
  return *bytes < 10'000'000 ? fmt::format("{:.1f} KB", double(*bytes) / 1e3)
                             : fmt::format("{:.1f} MB", double(*bytes) / 1e6);
}

ListTable results(const Comparison& c) {
  ListTable table{"results",
                  {"contender", "lr", "val loss", "std error", "steps to target",
                   "tokens to target", "ms/step", "state"},
                  {}};
  double tokens = double(c.config.batch_size * c.config.block_size);
  bool nodes = std::any_of(c.standings.begin(), c.standings.end(),
                           [](const Standing& s) { return !s.consensus.empty(); });
  if (nodes) table.columns.insert(table.columns.end(), {"nodes apart", "spread of nodes"});
  for (const Standing& s : c.standings) {
    const auto& steps = s.mean_steps_to_target;
    table.rows.push_back({s.contender.label, number(s.rate, "{}"), loss_text(s.mean),
                          number(s.error), steps ? number(*steps, "{:.0f}") : "not reached",
                          steps ? number(*steps * tokens, "{:.0f}") : "not reached",
                          number(s.ms_per_step, "{:.1f}"), bytes_text(s.state_bytes)});
    if (!nodes) continue;
    for (const std::vector<double>* of_seeds : {&s.consensus, &s.node_spread})
      table.rows.back().push_back(of_seeds->empty() ? "-" : number(mean(*of_seeds), "{:.3g}"));
  }
  return table;
}

ListTable seeds(const Comparison& c) {
  ListTable table{"per seed: validation loss, steps to target", {"contender"}, {}};
  for (int64_t seed : c.seeds) table.columns.push_back(fmt::format("seed {}", seed));
  for (const Standing& s : c.standings) {
    std::vector<std::string> row = {s.contender.label};
    for (size_t i = 0; i < s.val_loss.size(); i++) {
      const auto& steps = s.steps_to_target[i];
      row.push_back(loss_text(s.val_loss[i]) + ", " +
                    (steps ? std::to_string(*steps) : "not reached"));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

ListTable tuning(const Comparison& c) {
  ListTable table{"learning rates tried", {"contender", "lr", "val loss", ""}, {}};
  for (const Standing& s : c.standings) {
    for (const Trial& trial : s.trials) {
      const char* note = trial.rate != s.rate ? ""
                         : s.at_edge          ? "picked; at the edge of the grid"
                                              : "picked";
      table.rows.push_back(
          {s.contender.label, number(trial.rate, "{}"), loss_text(trial.loss), note});
    }
  }
  return table;
}

// A rule is passed or not; there is no third word such as "equal".
std::string passed(bool yes) { return yes ? "passes" : "not shown"; }

ListTable verdicts(const Comparison& c) {
  ListTable table{"verdict",
                  {"better than", "by", "std error", "in steps", "t", "p", "paired t-test",
                   "track 3", "own sigma"},
                  {}};
  for (const Verdict& v : c.verdicts) {
    std::vector<std::string> row = {fmt::format("{} than {}", v.better, v.worse)};
    if (!v.why_not.empty()) {
      row.insert(row.end(), {number(v.test.difference), "-", number(v.worth, "{:.0f}"), "-", "-",
                             "no verdict: " + v.why_not, "-", "-"});
    } else {
      row.insert(
          row.end(),
          {number(v.test.difference), number(v.test.error), number(v.worth, "{:.0f}"),
           number(v.test.t, "{:.2f}"), number(v.test.p, "{:.2g}"), v.shown ? "shown" : "not shown",
           fmt::format("{:.4f}, {}", v.score, passed(v.track3)),
           fmt::format("{} needed, {}", number(track3_threshold(v.sigma)), passed(v.track3_own))});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

// What has to be said beside the tables, a sentence each.
std::vector<std::string> notes(const Comparison& c) {
  std::vector<std::string> lines;
  lines.push_back(fmt::format(
      "All runs: {} steps of {} tokens, seeds {} to {}; within a seed the first loss is the "
      "same{}.",
      c.config.steps, c.config.batch_size * c.config.block_size, c.seeds.front(), c.seeds.back(),
      c.config.nodes > 1 ? " but for the order of sums" : " to the bit"));
  lines.push_back(fmt::format("Target: {} ({}); reached at the first validation that is not above.",
                              loss_text(c.target), c.target_from));
  for (const Standing& s : c.standings) {
    if (s.at_edge) {
      lines.push_back(
          fmt::format("{}: its best learning rate, {}, is at the edge of the grid; the "
                      "tuning is not finished.",
                      s.contender.label, s.rate));
    }
    auto lost = std::count_if(s.val_loss.begin(), s.val_loss.end(),
                              [](double loss) { return std::isinf(loss); });
    if (lost) {
      lines.push_back(fmt::format("{}: {} of {} seeds diverged, which counts as lost.",
                                  s.contender.label, lost, s.val_loss.size()));
    }
  }
  if (c.standings[0].trials.empty()) lines.push_back("No learning rate was tuned.");
  if (c.seeds.size() < 2) {
    lines.push_back(
        "One seed: no verdict. A difference needs a spread to be measured against; "
        "--seeds 5 trains what is missing.");
    return lines;
  }
  lines.push_back(
      fmt::format("Paired t-test: two-sided, shown below p = {:.3g} (0.05 shared among "
                  "{} comparison{}).",
                  c.level, c.verdicts.size(), c.verdicts.size() == 1 ? "" : "s"));
  lines.push_back(fmt::format(
      "Track 3: (difference + {} steps saved / 100) / sqrt(1/n + 1/n), passed from {} on, which "
      "that "
      "benchmark derived from its own spread, {}; own sigma: the same with the spread of the two.",
      kTrack3Slope, kTrack3Threshold, kTrack3Sigma));
  lines.push_back("In steps: the difference over the slope of the two curves near their ends.");
  return lines;
}

std::vector<ListTable> tables(const Comparison& c) {
  std::vector<ListTable> all = {results(c)};
  if (!c.standings[0].trials.empty()) all.push_back(tuning(c));
  if (!c.verdicts.empty()) all.push_back(verdicts(c));
  return all;
}

void write_plot(const Comparison& c, const std::string& path) {
  Plot plot{.title = fmt::format("{}: mean over {} seed{}", c.config.out, c.seeds.size(),
                                 c.seeds.size() == 1 ? "" : "s"),
            .x_label = "step",
            .y_label = "validation loss (nats per token)"};
  for (const Standing& s : c.standings) {
    Curve curve{.label = fmt::format("{}, lr {}", s.contender.label, s.rate),
                .x = s.curve_steps,
                .y = s.curve};
    for (size_t i = 0; c.seeds.size() > 1 && i < s.curve.size(); i++) {
      curve.low.push_back(s.curve[i] - s.curve_error[i]);
      curve.high.push_back(s.curve[i] + s.curve_error[i]);
    }
    plot.curves.push_back(std::move(curve));
  }
  write_png(plot, path);
}

}  // namespace

std::string to_text(const Comparison& c) {
  std::string text;
  for (const ListTable& table : tables(c)) text += "\n" + table.kind + "\n" + to_columns(table);
  text += "\n";
  for (const std::string& line : notes(c)) text += line + "\n";
  return text;
}

std::string to_markdown(const Comparison& c) {
  std::string text = "# Comparison\n\n![validation loss](compare.png)\n";
  std::vector<ListTable> all = tables(c);
  all.insert(all.begin() + 1, seeds(c));
  for (const ListTable& table : all)
    text += fmt::format("\n## {}\n\n{}", table.kind, to_markdown(table));
  text += "\n";
  for (const std::string& line : notes(c)) text += "- " + line + "\n";
  return text;
}

// Numbers that are not finite become null.
std::string to_json(const Comparison& c) {
  using json = nlohmann::ordered_json;
  auto maybe = [](const auto& value) { return value ? json(*value) : json(); };
  json methods = json::array(), pairs = json::array();
  double tokens = double(c.config.batch_size * c.config.block_size);
  for (const Standing& s : c.standings) {
    json steps = json::array(), tried = json::array();
    for (const auto& at : s.steps_to_target) steps.push_back(maybe(at));
    for (const Trial& trial : s.trials) {
      json losses = json::array();
      for (const RunOutcome& run : trial.runs) losses.push_back(run.val_loss);
      tried.push_back({{"lr", trial.rate},
                       {"val_loss", losses},
                       {"mean", trial.loss},
                       {"picked", trial.rate == s.rate}});
    }
    json settings = json::object();
    for (const auto& [name, value] : s.contender.settings) settings[name] = value;
    const auto& reached = s.mean_steps_to_target;
    methods.push_back({{"optimizer", s.contender.optimizer},
                       {"label", s.contender.label},
                       {"settings", settings},
                       {"lr", s.rate},
                       {"val_loss", s.val_loss},
                       {"mean", s.mean},
                       {"stderr", s.error},
                       {"diverged", std::count(s.val_loss.begin(), s.val_loss.end(), INFINITY)},
                       {"steps_to_target", steps},
                       {"mean_steps_to_target", maybe(reached)},
                       {"tokens_to_target", reached ? json(*reached * tokens) : json()},
                       {"ms_per_step", s.ms_per_step},
                       {"state_bytes", maybe(s.state_bytes)},
                       {"consensus", s.consensus},
                       {"node_spread", s.node_spread},
                       {"fall_per_100_steps", s.fall},
                       {"tuning", tried},
                       {"at_edge", s.at_edge},
                       {"curve",
                        {{"step", std::vector<int64_t>(s.curve_steps.begin(), s.curve_steps.end())},
                         {"mean", s.curve},
                         {"stderr", s.curve_error}}}});
  }
  for (const Verdict& v : c.verdicts) {
    pairs.push_back({{"better", v.better},
                     {"worse", v.worse},
                     {"no_verdict", v.why_not},
                     {"difference", v.test.difference},
                     {"stderr", v.test.error},
                     {"t", v.test.t},
                     {"p", v.test.p},
                     {"shown", v.shown},
                     {"steps_worth", v.worth},
                     {"track3_score", v.score},
                     {"track3_threshold", kTrack3Threshold},
                     {"track3_passes", v.track3},
                     {"sigma", v.sigma},
                     {"track3_own_threshold", track3_threshold(v.sigma)},
                     {"track3_own_passes", v.track3_own}});
  }
  json root = {{"methods", methods},
               {"verdicts", pairs},
               {"seeds", c.seeds},
               {"steps", c.config.steps},
               {"tokens_per_step", c.config.batch_size * c.config.block_size},
               {"target", c.target},
               {"target_from", c.target_from},
               {"level", c.level}};
  return root.dump(1) + "\n";
}

void report(const Comparison& c, const std::string& json) {
  const std::string folder = c.config.out + "/";
  write_file_durably(folder + "compare.md", to_markdown(c));
  write_file_durably(folder + "compare.json", to_json(c));
  write_plot(c, folder + "compare.png");
  if (!json.empty()) write_file_durably(json, to_json(c));
  fmt::print("{}\n{}: compare.md, compare.json, compare.png\n", to_text(c), c.config.out);
}

}  // namespace murmur
