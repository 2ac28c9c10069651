// train/synthetic_report.cpp - tables for the terminal and Markdown, JSON, and a picture.
#include "train/synthetic_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/files.h"
#include "train/list.h"
#include "train/plot.h"
#include "train/revision.h"
#include "train/significance.h"

namespace murmur {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kLevel = 0.05;
constexpr double kSaturated = 0.5;  // of the start: a mean above it has hardly begun to fall

std::string number(double value) {
  if (std::isnan(value)) return "-";
  return std::isinf(value) ? "diverged" : fmt::format("{:.4g}", value);
}

std::vector<double> each(const std::vector<Trace>& runs, double Trace::*what) {
  std::vector<double> values;
  for (const Trace& run : runs) values.push_back(run.*what);
  return values;
}

std::vector<double> last(const std::vector<Trace>& runs, std::vector<double> Trace::*what) {
  std::vector<double> values;
  for (const Trace& run : runs)
    values.push_back(!run.diverged.empty() ? INFINITY
                     : (run.*what).empty() ? NAN
                                           : (run.*what).back());
  return values;
}

ListTable results(const SyntheticReport& r) {
  ListTable table{"results",
                  {"method", "lr", "mean stationarity", "std error", "worst seed", "last quarter",
                   "std error", "consensus error", "f - min f"},
                  {}};
  for (const Candidate& c : r.candidates) {
    std::vector<double> means = each(c.runs, &Trace::mean), late = each(c.runs, &Trace::late);
    bool lost = std::isinf(mean(means));
    table.rows.push_back({c.tuned.method.label, number(c.tuned.rate), number(mean(means)),
                          lost ? "-" : number(standard_error(means)),
                          number(*std::max_element(means.begin(), means.end())), number(mean(late)),
                          lost ? "-" : number(standard_error(late)),
                          number(mean(last(c.runs, &Trace::consensus))),
                          number(mean(last(c.runs, &Trace::excess)))});
  }
  return table;
}

ListTable horizons(const SyntheticReport& r, const std::string& title, double Trace::*what) {
  ListTable table{title, {"method"}, {}};
  for (int64_t steps : r.options.horizons) table.columns.push_back(fmt::format("T = {}", steps));
  for (const RateFit& fit : r.fits) {
    std::vector<std::string> row = {fit.tuned.method.label};
    for (size_t i = 0; i < fit.runs.size(); i++) {
      std::vector<double> values = each(fit.runs[i], what);
      bool spread = values.size() > 1 && std::isfinite(mean(values));
      row.push_back(number(mean(values)) +
                    (spread ? " +- " + fmt::format("{:.2g}", standard_error(values)) : ""));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string verdict(const RateFit& fit, const TheoryRule& rule) {
  if (!std::isfinite(fit.slope)) return "no verdict: diverged";
  if (fit.slopes.size() < 2) return "no verdict: one seed";
  if (fit.flatter_p < kLevel) return "flatter than the bound, up to here";
  return fit.slope <= rule.bound() ? "as steep as the bound, or steeper"
                                   : "not shown to be flatter";
}

ListTable slopes(const SyntheticReport& r) {
  ListTable table{"slopes",
                  {"method", "lr at first T", "slope", "std error", "last slope", "std error",
                   "bound", "p flatter", "verdict"},
                  {}};
  for (const RateFit& fit : r.fits) {
    table.rows.push_back({fit.tuned.method.label, number(fit.tuned.rate), number(fit.slope),
                          number(fit.error), number(fit.last_slope), number(fit.last_error),
                          number(r.rule.bound()), number(fit.flatter_p), verdict(fit, r.rule)});
  }
  return table;
}

std::vector<Tuned> all_tuned(const SyntheticReport& r) {
  std::vector<Tuned> all;
  for (const Candidate& c : r.candidates) all.push_back(c.tuned);
  for (const RateFit& fit : r.fits) all.push_back(fit.tuned);
  return all;
}

ListTable tuning(const SyntheticReport& r) {
  ListTable table{"learning rates tried", {"method", "lr", "mean stationarity", ""}, {}};
  for (const Tuned& tuned : all_tuned(r)) {
    for (const auto& [rate, value] : tuned.trials) {
      const char* word = rate != tuned.rate ? ""
                         : tuned.at_edge    ? "picked; at the edge of the grid"
                                            : "picked";
      table.rows.push_back({tuned.method.label, number(rate), number(value), word});
    }
  }
  return table;
}

std::vector<ListTable> tables(const SyntheticReport& r) {
  std::vector<ListTable> all;
  if (r.options.rates) {
    all = {slopes(r), horizons(r, "mean stationarity", &Trace::mean),
           horizons(r, "stationarity over the last quarter", &Trace::late), tuning(r)};
  } else {
    all = {results(r), tuning(r)};
  }
  if (all.back().rows.empty()) all.pop_back();
  return all;
}

std::vector<std::string> notes(const SyntheticReport& r) {
  const SyntheticProblem& p = r.options.problem;
  const Landscape& l = p.landscape;
  std::vector<std::string> lines = {
      fmt::format("{} of ({}, {}), condition {:g}, heterogeneity {:g}; noise {} of scale {:g}; {} "
                  "nodes, {}, where a method says nothing else; seeds {} to {}.",
                  p.objective, l.rows, l.cols, l.condition, l.heterogeneity, p.noise, p.noise_scale,
                  r.config.nodes, r.config.graph.name, r.config.seed,
                  r.config.seed + r.options.seeds - 1),
      "Stationarity: the nuclear norm of grad f at the mean over nodes; its mean is over all "
      "steps, "
      "which is what the theory bounds."};
  if (!r.options.rates) {
    lines.push_back(fmt::format("{} steps. {}", r.config.steps,
                                r.options.factors.size() > 1
                                    ? "Learning rates were tuned on the first seed, for the "
                                      "smallest mean stationarity."
                                    : "No learning rate was tuned."));
    return lines;
  }
  const TheoryRule& rule = r.rule;
  lines.push_back(fmt::format(
      "Tail index a = {:g}: lr ~ T^{:.3f}, 1 - momentum = T^{:.3f}, bound T^-(a - 1) / (3a - 2) = "
      "T^{:.3f}. lr was tuned at the first T, on the first seed.",
      rule.tail_index, rule.rate_exponent(), rule.theta_exponent(), rule.bound()));
  lines.push_back(
      "The bound is an upper one, for the worst function, and holds up to a constant: a slope may "
      "be "
      "steeper, and must not stay flatter as T grows. Last slope: between the two longest T. p "
      "flatter: one-sided t-test over seeds, of slopes this flat where the bound's is true.");
  for (const RateFit& fit : r.fits) {
    double shortest = mean(each(fit.runs[0], &Trace::mean));
    double start = fit.runs[0][0].stationarity[0];
    if (shortest < kSaturated * start) continue;
    lines.push_back(fmt::format(
        "{}: at T = {} the mean is {:.0f} % of the first seed's start, so there is no power law to "
        "see yet: longer --horizons, or less noise.",
        fit.tuned.method.label, r.options.horizons.front(), 100 * shortest / start));
  }
  return lines;
}

std::string to_text(const SyntheticReport& r) {
  std::string text;
  for (const ListTable& table : tables(r)) text += "\n" + table.kind + "\n" + to_columns(table);
  text += "\n";
  for (const std::string& line : notes(r)) text += line + "\n";
  return text;
}

std::string to_markdown(const SyntheticReport& r) {
  std::string text = "# Synthetic suite\n\n![stationarity](synthetic.png)\n";
  for (const ListTable& table : tables(r))
    text += fmt::format("\n## {}\n\n{}", table.kind, to_markdown(table));
  text += "\n";
  for (const std::string& line : notes(r)) text += "- " + line + "\n";
  return text;
}

Json json_of(const Trace& t) {
  return {{"diverged", t.diverged},
          {"mean", t.mean},
          {"last_quarter", t.late},
          {"step", t.steps},
          {"stationarity", t.stationarity},
          {"consensus_error", t.consensus},
          {"excess", t.excess}};
}

Json json_of(const Tuned& tuned) {
  Json settings = Json::object(), trials = Json::array();
  for (const auto& [name, value, where] : tuned.method.settings) settings[name] = value;
  for (const auto& [rate, value] : tuned.trials) trials.push_back({{"lr", rate}, {"mean", value}});
  return {{"label", tuned.method.label},
          {"settings", settings},
          {"lr", tuned.rate},
          {"tuning", trials},
          {"at_edge", tuned.at_edge}};
}

// Numbers that are not finite become null.
std::string to_json(const SyntheticReport& r) {
  const SyntheticProblem& p = r.options.problem;
  Json methods = Json::array();
  for (const Candidate& c : r.candidates) {
    Json method = json_of(c.tuned);
    for (const Trace& run : c.runs) method["runs"].push_back(json_of(run));
    methods.push_back(method);
  }
  for (const RateFit& fit : r.fits) {
    Json method = json_of(fit.tuned);
    method.update({{"slope", fit.slope},
                   {"stderr", fit.error},
                   {"last_slope", fit.last_slope},
                   {"last_stderr", fit.last_error},
                   {"slopes", fit.slopes},
                   {"flatter_p", fit.flatter_p},
                   {"verdict", verdict(fit, r.rule)}});
    for (size_t i = 0; i < fit.runs.size(); i++) {
      method["horizons"].push_back({{"steps", r.options.horizons[i]},
                                    {"means", each(fit.runs[i], &Trace::mean)},
                                    {"last_quarters", each(fit.runs[i], &Trace::late)}});
    }
    methods.push_back(method);
  }
  Json root = {{"objective", p.objective},
               {"rows", p.landscape.rows},
               {"cols", p.landscape.cols},
               {"condition", p.landscape.condition},
               {"heterogeneity", p.landscape.heterogeneity},
               {"noise", p.noise},
               {"noise_scale", p.noise_scale},
               {"nodes", r.config.nodes},
               {"topology", r.config.graph.name},
               {"seed", r.config.seed},
               {"seeds", r.options.seeds},
               {"revision", revision()}};
  if (r.options.rates) {
    root.update({{"tail_index", r.rule.tail_index},
                 {"bound", r.rule.bound()},
                 {"rate_exponent", r.rule.rate_exponent()},
                 {"theta_exponent", r.rule.theta_exponent()}});
  } else {
    root["steps"] = r.config.steps;
  }
  root["methods"] = methods;
  return root.dump(1) + "\n";
}

// Mean over seeds and, of several, a band of one standard error; no point where a run is missing.
void add_point(Curve& curve, double x, const std::vector<double>& values) {
  double y = mean(values), error = values.size() > 1 ? standard_error(values) : 0;
  curve.x.push_back(x);
  curve.y.push_back(y);
  curve.low.push_back(y - error);
  curve.high.push_back(y + error);
}

Curve curve_of(const Candidate& c) {
  Curve curve{
      .label = fmt::format("{}, lr {:.3g}", c.tuned.method.label, c.tuned.rate), .x = {}, .y = {}};
  size_t points = c.runs[0].steps.size();
  for (const Trace& run : c.runs) points = std::min(points, run.steps.size());
  for (size_t i = 0; i < points; i++) {
    std::vector<double> values;
    for (const Trace& run : c.runs) values.push_back(run.running_mean[i]);
    add_point(curve, c.runs[0].steps[i] + 1, values);
  }
  return curve;
}

Curve curve_of(const RateFit& fit, const std::vector<int64_t>& horizons) {
  Curve curve{.label = fmt::format("{:.3f} {}", fit.slope, fit.tuned.method.label),
              .x = {},
              .y = {},
              .markers = true};
  for (size_t i = 0; i < horizons.size(); i++)
    add_point(curve, double(horizons[i]), each(fit.runs[i], &Trace::mean));
  return curve;
}

void write_plot(const SyntheticReport& r, const std::string& path) {
  const SyntheticProblem& p = r.options.problem;
  Plot plot{.title = fmt::format("{}, {}, {} nodes, {}", p.objective, p.noise, r.config.nodes,
                                 r.config.graph.name),
            .x_label = r.options.rates ? "steps T; in the legend: slopes" : "step",
            .y_label = "mean |grad f|_*",
            .log_x = true,
            .log_y = true};
  for (const Candidate& c : r.candidates) plot.curves.push_back(curve_of(c));
  for (const RateFit& fit : r.fits) plot.curves.push_back(curve_of(fit, r.options.horizons));
  if (r.options.rates) {
    const Curve& first = plot.curves[0];
    double from = first.x.front(), to = first.x.back(), y = first.y.front();
    plot.curves.push_back({.label = fmt::format("{:.3f} the bound", r.rule.bound()),
                           .x = {from, to},
                           .y = {y, y * std::pow(to / from, r.rule.bound())}});
  }
  write_png(plot, path);
}

}  // namespace

void write(const SyntheticReport& r) {
  const std::string& folder = r.config.out;
  write_file_durably(folder + "/synthetic.md", to_markdown(r));
  write_file_durably(folder + "/synthetic.json", to_json(r));
  write_plot(r, folder + "/synthetic.png");
  if (!r.options.json.empty()) write_file_durably(r.options.json, to_json(r));
  fmt::print("{}\n{}: synthetic.md, synthetic.json, synthetic.png\n", to_text(r), folder);
}

}  // namespace murmur
