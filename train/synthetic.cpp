// train/synthetic.cpp - methods, their learning rates, their seeds; the rule of the theory.
#include "train/synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>

#include "train/files.h"
#include "train/folder_lock.h"
#include "train/significance.h"
#include "train/synthetic_report.h"

namespace murmur {
namespace {

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ');
  return begin == text.npos ? "" : text.substr(begin, end - begin + 1);
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(trimmed(part));
  return parts;
}

// A node's gradient is one draw: there are no sequences, and so always enough for all nodes.
const Assignment kEnough = {"batch_size", std::to_string(1 << 20)};

// What all runs share comes first; `own` wins over the method's settings.
Config config_of(const SyntheticOptions& options, const Method& method,
                 const std::vector<Assignment>& own = {}) {
  std::vector<Assignment> all = options.settings;
  all.insert(all.end(), method.settings.begin(), method.settings.end());
  all.insert(all.end(), own.begin(), own.end());
  all.push_back(kEnough);
  return make_config(all);
}

double usual_rate(const Config& config) {
  return make_routes(config)[0].use.optimizer->learning_rate;
}

// 3 * 0.1 is 0.30000000000000004, which nobody wants to read.
double in_six_digits(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

Assignment rate_setting(double rate) { return {"optimizer.lr", fmt::format("{}", rate)}; }

class Suite {
 public:
  explicit Suite(const SyntheticOptions& options) : options_(options) {}

  Trace run(const Method& method, std::vector<Assignment> own, int64_t seed) {
    int64_t first = config_of(options_, method).seed;
    own.emplace_back("seed", std::to_string(first + seed));
    Config config = config_of(options_, method, own);
    auto start = std::chrono::steady_clock::now();
    Trace trace = run_synthetic(config, options_.problem);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    fmt::print(stderr, "{} lr {:.6g} seed {}, {} steps: {} in {:.1f} s\n", method.label,
               usual_rate(config), config.seed, config.steps,
               trace.diverged.empty() ? fmt::format("{:.4g}", trace.mean) : "diverged",
               seconds.count());
    return trace;
  }

  // Tries every rate on the first seed, and gives the best run.
  Trace tune(const std::vector<Assignment>& own, Tuned& tuned) {
    double usual = usual_rate(config_of(options_, tuned.method));
    std::vector<double> factors = options_.factors;
    std::sort(factors.begin(), factors.end());
    Trace best;
    for (double factor : factors) {
      double rate = in_six_digits(factor * usual);
      std::vector<Assignment> with_rate = own;
      with_rate.push_back(rate_setting(rate));
      Trace trace = run(tuned.method, with_rate, 0);
      tuned.trials.emplace_back(rate, trace.mean);
      if (tuned.trials.size() > 1 && !(trace.mean < best.mean)) continue;
      best = trace;
      tuned.rate = rate;
    }
    double first = tuned.trials.front().first, last = tuned.trials.back().first;
    tuned.at_edge = factors.size() > 1 && (tuned.rate == first || tuned.rate == last);
    if (factors.size() == 1) tuned.trials.clear();
    return best;
  }

  Candidate race(const Method& method) {
    Candidate candidate{{method}};
    candidate.runs.push_back(tune({}, candidate.tuned));
    for (int64_t seed = 1; seed < options_.seeds; seed++)
      candidate.runs.push_back(run(method, {rate_setting(candidate.tuned.rate)}, seed));
    return candidate;
  }

  RateFit fit(const Method& method, const TheoryRule& rule) {
    RateFit fit{{method}};
    std::string momentum = momentum_setting(method);
    int64_t shortest = options_.horizons.front();
    auto settings = [&](int64_t steps) {
      double theta = std::pow(double(steps), rule.theta_exponent());
      return std::vector<Assignment>{{"steps", std::to_string(steps)},
                                     {momentum, fmt::format("{:.17g}", 1 - theta)}};
    };
    Trace tuned = tune(settings(shortest), fit.tuned);
    for (int64_t steps : options_.horizons) {
      double longer = double(steps) / double(shortest);
      std::vector<Assignment> own = settings(steps);
      own.push_back(rate_setting(fit.tuned.rate * std::pow(longer, rule.rate_exponent())));
      std::vector<Trace>& runs = fit.runs.emplace_back();
      for (int64_t seed = 0; seed < options_.seeds; seed++)
        runs.push_back(steps == shortest && seed == 0 ? tuned : run(method, own, seed));
    }
    fit_slopes(options_.horizons, rule, fit);
    return fit;
  }

  // Where theta goes: the strategy's momentum, or the optimizer's, whichever is not 0.
  std::string momentum_setting(const Method& method) {
    Config config = config_of(options_, method);
    for (const auto& [owner, settings] : {std::pair{"strategy", config.strategy_options},
                                          {"optimizer", config.optimizer_options}}) {
      auto found = settings.find("momentum");
      if (found != settings.end() && std::strtod(found->second.c_str(), nullptr) > 0)
        return std::string(owner) + ".momentum";
    }
    throw InputError(fmt::format(
        "rates: '{}' sets no momentum, and the rule of the theory is about one; try demuon, "
        "gt_nsgdm, or leave --rates out",
        method.label));
  }

 private:
  const SyntheticOptions& options_;
};

void check_options(const SyntheticOptions& options) {
  for (const auto& [name, value, where] : options.settings) {
    bool own = name == "recipe" || name == "optimizer" || name == "lr" || name == "strategy" ||
               name.starts_with("optimizer.");
    if (own) {
      throw InputError(
          fmt::format("{}: a method has its own settings; write them behind its name: --recipes "
                      "'demuon:{}={}'",
                      name, name == "lr" ? "optimizer.lr" : name, value));
    }
  }
  std::vector<int64_t> horizons = options.horizons;
  bool rising = std::is_sorted(horizons.begin(), horizons.end(), std::less_equal<>());
  if (options.rates && (horizons.size() < 2 || !rising))
    throw InputError("horizons: a slope needs two or more, each longer than the one before");
  if (!options.json.empty()) check_writable("json", options.json);
}

}  // namespace

Method parse_method(const std::string& typed) {
  std::string text = trimmed(typed);
  size_t colon = std::min(text.find(':'), text.size());
  Method method{text, {{"recipe", text.substr(0, colon)}}};
  try {
    for (const std::string& part : split(text.substr(std::min(colon + 1, text.size())), ';')) {
      size_t equals = part.find('=');
      if (equals == part.npos || equals == 0)
        throw InputError(fmt::format("'{}' is no setting; write setting=value", part));
      std::string name = part.substr(0, equals), value = part.substr(equals + 1);
      if (name == "steps" || name == "seed" || name == "recipe" || name == "out")
        throw InputError(fmt::format("'{}' is for all methods alike", name));
      method.settings.emplace_back(name, value);
    }
    std::vector<Assignment> several = method.settings;
    several.insert(several.begin(), {"nodes", "2"});
    several.push_back(kEnough);
    make_config(several);  // checks names and values
  } catch (const InputError& error) {
    throw InputError(fmt::format("recipes: '{}': {}", text, error.what()));
  }
  return method;
}

void fit_slopes(const std::vector<int64_t>& horizons, const TheoryRule& rule, RateFit& fit) {
  std::vector<double> last;  // between the two longest horizons
  for (size_t seed = 0; seed < fit.runs[0].size(); seed++) {
    std::vector<double> x, y;
    for (size_t i = 0; i < horizons.size(); i++) {
      x.push_back(std::log(double(horizons[i])));
      y.push_back(std::log(fit.runs[i][seed].mean));
    }
    fit.slopes.push_back(slope(x, y));
    last.push_back(slope(std::span(x).last(2), std::span(y).last(2)));
  }
  fit.slope = mean(fit.slopes);
  fit.error = standard_error(fit.slopes);
  fit.last_slope = mean(last);
  fit.last_error = standard_error(last);
  double t = (fit.slope - rule.bound()) / fit.error;
  double two_sided = student_p(t, double(fit.slopes.size()) - 1);
  fit.flatter_p = t > 0 ? two_sided / 2 : 1 - two_sided / 2;
}

void synthetic(const SyntheticOptions& options) {
  check_options(options);
  Noise noise(options.problem.noise, options.problem.noise_scale);
  std::vector<Method> methods;
  for (const std::string& text : options.recipes) methods.push_back(parse_method(text));
  Suite suite(options);
  SyntheticReport report{options, config_of(options, methods[0]), {noise.tail_index()}};
  FolderLock lock;
  lock.take(report.config.out);
  if (options.rates) {
    for (const Method& method : methods)
      suite.momentum_setting(method);  // complains before it runs
    for (const Method& method : methods) report.fits.push_back(suite.fit(method, report.rule));
  } else {
    for (const Method& method : methods) report.candidates.push_back(suite.race(method));
  }
  write(report);
}

}  // namespace murmur
