// train/contender.cpp - from one line of text to contenders.
#include "train/contender.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>  // strchr
#include <set>

#include "optim/registry.h"
#include "tensor/check.h"
#include "tensor/nearest.h"

namespace murmur {
namespace {

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == text.npos ? "" : text.substr(begin, end - begin + 1);
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    size_t end = text.find(at, begin);
    parts.push_back(trimmed(text.substr(begin, end - begin)));
    if (end == text.npos) return parts;
    begin = end + 1;
  }
}

// Ascending. `what` names the place for the error.
std::vector<double> parse_numbers(const std::string& text, char separator,
                                  const std::string& what) {
  std::vector<double> numbers;
  for (const std::string& part : split(text, separator)) {
    double value = 0;
    auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    bool is_number = error == std::errc() && stop == part.data() + part.size();
    if (!is_number || !(value > 1e-300) || !std::isfinite(value))
      throw InputError(fmt::format("{}: '{}' is not a number above 0", what, part));
    if (std::count(numbers.begin(), numbers.end(), value))
      throw InputError(fmt::format("{}: {} stands there twice; leave one out", what, part));
    numbers.push_back(value);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// 3 * 0.1 is 0.30000000000000004, and a folder is named after it.
double in_six_digits(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

std::string folder_of(const Contender& contender) {
  std::string folder = contender.optimizer;
  for (const auto& [key, value] : contender.settings) {
    bool own = key.starts_with("optimizer.");
    folder += "_" + (own ? key.substr(10) : key) + "=" + value;
  }
  for (char& c : folder) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && !std::strchr("._=+-", c)) c = '_';
  }
  return folder;
}

bool is_recipe(const std::string& name) {
  const std::vector<std::string> known = names_of(recipe_list());
  return std::find(known.begin(), known.end(), name) != known.end();
}

double usual_rate(const std::string& name) {
  if (is_recipe(name))
    return make_routes(make_config({{"recipe", name}}))[0].use.optimizer->learning_rate;
  std::vector<std::string> known = names_of(recipe_list());
  for (const OptimizerEntry& entry : optimizer_list()) {
    if (entry.name == name) return entry.make()->learning_rate;
    known.push_back(entry.name);
  }
  throw InputError(fmt::format("optimizer: there is no '{}', nor a recipe; did you mean '{}'?",
                               name, nearest(name, known)));
}

Contender parse_contender(const std::string& text, const std::vector<double>& factors) {
  size_t colon = std::min(text.find(':'), text.size());
  Contender contender{"", trimmed(text.substr(0, colon)), {}, {}, ""};
  contender.label = contender.optimizer;
  if (contender.optimizer.empty()) {
    throw InputError(fmt::format(
        "optimizers: a name is missing in '{}'; write name, or name:setting=value;setting=value",
        text));
  }
  double usual = usual_rate(contender.optimizer);
  for (double factor : factors) contender.rates.push_back(in_six_digits(factor * usual));
  if (colon == text.size()) return contender;
  bool rates_given = false;
  for (const std::string& part : split(text.substr(colon + 1), ';')) {
    size_t equals = part.find('=');
    if (equals == part.npos || equals == 0)
      throw InputError(fmt::format("'{}' is no setting; write setting=value", part));
    std::string key = trimmed(part.substr(0, equals)), value = trimmed(part.substr(equals + 1));
    if (key == "lr" && rates_given) throw InputError("'lr' stands there twice; write lr=0.01|0.02");
    if (key == "lr") {
      rates_given = true;
      contender.rates = parse_numbers(value, '|', "lr");
    } else {
      contender.label += (contender.settings.empty() ? ":" : ";") + key + "=" + value;
      bool whole = may_be_own(key);
      if (!contender.settings.emplace(whole ? key : "optimizer." + key, value).second)
        throw InputError(fmt::format("'{}' stands there twice; leave one out", key));
    }
  }
  return contender;
}

}  // namespace

bool may_be_own(const std::string& setting) {
  static const std::set<std::string> own = {
      "auxiliary", "strategy",    "matrices",       "one_rate",     "row_blocks",
      "clip",      "clip_growth", "clip_form",      "schedule",     "warmup",
      "min_lr",    "weights",     "decay_fraction", "recipe_values"};
  return own.contains(setting) || setting.starts_with("auxiliary.") ||
         setting.starts_with("strategy.");
}

std::vector<Contender> parse_contenders(const std::string& text, const std::string& factors) {
  std::vector<double> all_factors = {1};
  if (!factors.empty()) all_factors = parse_numbers(factors, ',', "lrs");
  std::vector<Contender> contenders;
  for (const std::string& label : split(text, ',')) {
    try {
      Contender contender = parse_contender(label, all_factors);
      for (double rate : contender.rates) contender_config({}, contender, rate);  // checks all
      contender.folder = folder_of(contender);
      contenders.push_back(std::move(contender));
    } catch (const InputError& error) {
      std::string what = error.what(), where = "optimizers: ";
      if (!what.starts_with(where)) what = fmt::format("{}'{}': {}", where, label, what);
      throw InputError(what);
    }
  }
  for (size_t i = 0; i < contenders.size(); i++) {
    const Contender &first = contenders[0], &last = contenders[i];
    for (size_t j = 0; j < i; j++) {
      if (contenders[j].folder == last.folder) {
        throw InputError(fmt::format(
            "optimizers: '{}' stands there twice; several rates are written lr=0.01|0.02",
            last.label));
      }
    }
    if (last.rates.size() != first.rates.size()) {
      throw InputError(
          fmt::format("optimizers: '{}' would try {} learning rate{}, '{}' {}; give all contenders "
                      "equally many",
                      first.label, first.rates.size(), first.rates.size() == 1 ? "" : "s",
                      last.label, last.rates.size()));
    }
  }
  return contenders;
}

Config contender_config(const std::vector<Assignment>& shared, const Contender& contender,
                        double rate) {
  std::vector<Assignment> all = shared;
  all.emplace_back(is_recipe(contender.optimizer) ? "recipe" : "optimizer", contender.optimizer);
  for (const auto& [name, value] : contender.settings) all.push_back({name, value});
  all.emplace_back("optimizer.lr", fmt::format("{}", rate));
  return make_config(all);
}

}  // namespace murmur
