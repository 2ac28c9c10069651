// train/compare_over.cpp - combinations of settings, a race each, and the table of all.
#include "train/compare_over.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "dist/bootstrap.h"
#include "train/compare_report.h"
#include "train/files.h"
#include "train/folder_lock.h"
#include "train/interrupt.h"
#include "train/list.h"

namespace murmur {
namespace {

std::string text_of(const std::vector<Assignment>& settings) {
  std::string text;
  for (const auto& [name, value, where] : settings)
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", name, value);
  return text;
}

std::string cell_of(const Standing& s) {
  if (s.diverged()) return "diverged";
  std::string text = fmt::format("{:.4f}", s.mean);
  if (std::isfinite(s.error)) text += fmt::format(" +- {:.4f}", s.error);
  return text + fmt::format(" (lr {}{})", s.rate, s.at_edge ? ", edge" : "");
}

}  // namespace

std::vector<std::vector<Assignment>> combinations(const std::string& over) {
  std::vector<std::vector<Assignment>> all = {{}};
  std::istringstream settings(over);
  std::set<std::string> seen;
  for (std::string setting; std::getline(settings, setting, ';');) {
    std::erase(setting, ' ');
    size_t equals = setting.find('=');
    if (equals == setting.npos || equals == 0 || equals + 1 == setting.size())
      throw InputError(fmt::format(
          "over: '{}' is no list; write topology=ring,complete;partition=iid,by-document",
          setting));
    std::string name = setting.substr(0, equals);
    if (!seen.insert(name).second)
      throw InputError(fmt::format("over: '{}' stands there twice; leave one out", name));
    if (name == "out" || name == "seed" || name == "optimizer" || name == "recipe")
      throw InputError(fmt::format("over: a race has its own {}; name another setting", name));
    std::vector<std::vector<Assignment>> more;
    for (const auto& before : all) {
      std::istringstream values(setting.substr(equals + 1));
      for (std::string value; std::getline(values, value, ',');) {
        more.push_back(before);
        more.back().emplace_back(name, value);
        if (std::count(more.begin(), more.end() - 1, more.back()))
          throw InputError(
              fmt::format("over: {}={} stands there twice; leave one out", name, value));
      }
    }
    all = std::move(more);
  }
  return all;
}

int compare_over(const CompareOptions& options, const std::string& over) {
  const std::string out = value_of(options.settings, "out", Config{}.out);
  std::vector<std::vector<Assignment>> settings = combinations(over);
  for (const auto& own : settings) {  // all names and values, before anything is trained
    std::vector<Assignment> wanted = options.settings;
    wanted.insert(wanted.end(), own.begin(), own.end());
    make_config(wanted);
  }
  FolderLock lock;
  lock.take(out);
  using json = nlohmann::ordered_json;
  ListTable losses{"validation loss", {"contender"}, {}},
      winners{"best", {"setting", "best", "than the second best"}, {}};
  json races = json::array();
  for (size_t i = 0; i < settings.size(); i++) {
    std::string name = text_of(settings[i]);
    CompareOptions one = options;
    one.json.clear();
    one.settings.insert(one.settings.end(), settings[i].begin(), settings[i].end());
    one.settings.emplace_back("out", out + "/" + name);
    fmt::print("race {}/{}: {}\n", i + 1, settings.size(), name);
    std::optional<Comparison> c = race_and_judge(one);
    if (!c) {
      fmt::print("the same command goes on\n");
      return interrupted() ? kInterruptedCode : 0;
    }
    report(*c, "");
    losses.columns.push_back(name);
    std::vector<const Standing*> order;
    for (size_t k = 0; k < c->standings.size(); k++) {
      const Standing& s = c->standings[k];
      if (i == 0) losses.rows.push_back({s.contender.label});
      losses.rows[k].push_back(cell_of(s));
      order.push_back(&s);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const Standing* a, const Standing* b) { return a->mean < b->mean; });
    std::string verdict = "no test of these two";
    for (const Verdict& v : c->verdicts) {
      if (order.size() > 1 && v.better == order[0]->contender.label &&
          v.worse == order[1]->contender.label)
        verdict = fmt::format("{} by {:.4f}: {}", v.worse, v.test.difference,
                              v.why_not.empty() ? v.shown ? "shown" : "not shown" : v.why_not);
    }
    winners.rows.push_back({name, order[0]->contender.label, verdict});
    races.push_back({{"setting", name}, {"race", json::parse(to_json(*c))}});
  }
  std::string text =
      "# " + over + "\n\n" + to_markdown(losses) + "\n" + to_markdown(winners) +
      "\nMean and standard error over seeds of the last validation loss (nats per "
      "token), of the mean of all nodes; in brackets the learning rate that was "
      "picked. Tables, curves and tests of each setting: compare.md in its folder.\n";
  write_file_durably(out + "/over.md", text);
  write_file_durably(out + "/over.json", races.dump(1) + "\n");
  if (!options.json.empty()) write_file_durably(options.json, races.dump(1) + "\n");
  fmt::print("\n{}\n{}: over.md, over.json\n", text, out);
  return 0;
}

std::string paper_setup(CompareOptions& options) {
  struct Method {
    const char *topology, *contenders;
  };
  // Rates, schedules and momenta of exp3_decentralize_gpt.py's experiments.toml.
  static const Method methods[] = {
      {"complete",
       "demuon:lr=0.1;schedule=inverse_sqrt;strategy.momentum=0.2,"
       "dsgd:lr=0.006;schedule=inverse_sqrt,dsgd_clip:lr=0.6;schedule=inverse,"
       "gt_nsgdm:lr=0.07;schedule=constant"},
      {"exponential_demuon",
       "demuon:lr=0.005;schedule=wsd,dsgd:lr=0.03;schedule=wsd,dsgd_clip:lr=0.2;schedule=wsd,"
       "gt_nsgdm:lr=0.05;schedule=wsd"},
      {"ring",
       "demuon:lr=0.003;schedule=wsd,dsgd:lr=0.03;schedule=wsd,dsgd_clip:lr=0.1;schedule=wsd,"
       "gt_nsgdm:lr=0.03;schedule=wsd"},
  };
  std::vector<Assignment> setup = {
      {"n_layer", "2"},    {"n_head", "4"},         {"n_embd", "256"},     {"block_size", "64"},
      {"nodes", "8"},      {"batch_size", "512"},   {"steps", "8500"},     {"warmup", "0"},
      {"min_lr", "0"},     {"decay_fraction", "1"}, {"eval_every", "100"}, {"seed", "42"},
      {"topology", "ring"}};
  setup.insert(setup.end(), options.settings.begin(), options.settings.end());
  options.settings = std::move(setup);
  std::string topology = value_of(options.settings, "topology", "ring");
  for (const Method& method : methods)
    if (topology == method.topology) options.optimizers = method.contenders;
  if (options.optimizers.find("demuon") == std::string::npos)
    throw InputError(
        "paper-setup: the authors have settings for topology ring, exponential_demuon and "
        "complete; name one of them");
  return fmt::format(
      "The authors' settings on {}. Their model lets attention see the tokens it is to predict and "
      "their training text is shuffled token by token: losses of {} are not comparable with "
      "theirs, and rank optimizers on another task.\n",
      topology, value_of(options.settings, "data", Config{}.data));
}

}  // namespace murmur
