// train/list.cpp - one function per list; all come from the lists themselves.
#include "train/list.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dist/collectives.h"
#include "dist/network.h"
#include "dist/strategy.h"
#include "dist/topology.h"
#include "dist/transport.h"
#include "optim/orthogonalizers.h"
#include "optim/registry.h"
#include "optim/scale.h"
#include "optim/schedule.h"
#include "tensor/nearest.h"
#include "train/config.h"
#include "train/noise.h"
#include "train/objective.h"
#include "train/tokenizer.h"

namespace murmur {
namespace {

using Rows = std::vector<std::vector<std::string>>;

template <class List>
Rows name_and_summary(const List& list) {
  Rows rows;
  for (const auto& entry : list) rows.push_back({entry.name, entry.summary});
  return rows;
}

ListTable ops() {
  return {"ops",
          {"name", "kind", "summary"},
          {
#define UNARY(name, Functor, low, high, summary) {#name, "unary", summary},
#define BINARY(name, Functor, low, high, summary) {#name, "binary", summary},
#define FUNCTION(name, summary) {#name, "function", summary},
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
          }};
}

ListTable optimizers() {
  ListTable table{"optimizers", {"name", "summary", "takes", "settings"}, {}};
  for (const OptimizerEntry& entry : optimizer_list()) {
    auto optimizer = entry.make();
    std::string settings;
    for (const Option& option : all_options(*optimizer))
      settings += (settings.empty() ? "" : ", ") + option.name + " " + option_text(option);
    table.rows.push_back({entry.name, entry.summary,
                          optimizer->matrices_only() ? "matrices" : "all roles", settings});
  }
  return table;
}

ListTable strategies() {
  ListTable table{"strategies", {"name", "summary", "settings"}, {}};
  for (const StrategyEntry& entry : strategy_list()) {
    auto strategy = entry.make();
    std::string settings;
    for (const Option& option : strategy->options())
      settings += (settings.empty() ? "" : ", ") + option.name + " " + option_text(option);
    table.rows.push_back({entry.name, entry.summary, settings});
  }
  return table;
}

ListTable recipes() {
  ListTable table{"recipes", {"name", "summary", "formula", "settings", "published"}, {}};
  auto text = [](const std::vector<Assignment>& assignments) {
    std::string words;
    for (const auto& [key, value, where] : assignments)
      words += (words.empty() ? "" : " ") + key + "=" + value;
    return words;
  };
  for (const Recipe& r : recipe_list())
    table.rows.push_back({r.name, r.summary, r.formula, text(r.settings), text(r.published)});
  return table;
}

ListTable networks() {
  ListTable table{"networks", {"name", "latency_us", "gigabytes_per_s", "summary"}, {}};
  for (const Network& n : network_list())
    table.rows.push_back(
        {n.name, fmt::format("{}", n.latency_us), fmt::format("{}", n.gigabytes_per_s), n.summary});
  return table;
}

ListTable presets() {
  ListTable table{"presets", {"name", "layers", "heads", "width", "block", "batch", "summary"}, {}};
  for (const Preset& p : preset_list()) {
    auto n = [](int64_t v) { return std::to_string(v); };
    table.rows.push_back({p.name, n(p.n_layer), n(p.n_head), n(p.n_embd), n(p.block_size),
                          n(p.batch_size), p.summary});
  }
  return table;
}

ListTable config() {
  ListTable table{"config", {"name", "kind", "default", "summary"}, {}};
  Config defaults;
  for (const Option& option : defaults.options())
    table.rows.push_back({option.name, option_kind(option), option_text(option), option.summary});
  return table;
}

struct Kind {
  std::string name;
  ListTable (*make)();
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {
      {"ops", ops},
      {"optimizers", optimizers},
      {"orthogonalizers",
       [] {
         return ListTable{
             "orthogonalizers", {"name", "summary"}, name_and_summary(orthogonalizer_list())};
       }},
      {"scales",
       [] {
         return ListTable{"scales", {"name", "summary"}, name_and_summary(shape_scales())};
       }},
      {"schedules",
       [] {
         return ListTable{"schedules", {"name", "summary"}, name_and_summary(schedule_list())};
       }},
      {"transports",
       [] {
         return ListTable{"transports", {"name", "summary"}, name_and_summary(transport_list())};
       }},
      {"topologies",
       [] {
         return ListTable{"topologies", {"name", "summary"}, name_and_summary(topology_list())};
       }},
      {"weights",
       [] {
         return ListTable{"weights", {"name", "summary"}, name_and_summary(weights_list())};
       }},
      {"strategies", strategies},
      {"recipes", recipes},
      {"collectives",
       [] {
         return ListTable{"collectives", {"name", "summary"}, name_and_summary(algorithm_list())};
       }},
      {"networks", networks},
      {"tokenizers",
       [] {
         return ListTable{"tokenizers", {"name", "summary"}, name_and_summary(tokenizers())};
       }},
      {"objectives",
       [] {
         return ListTable{"objectives", {"name", "summary"}, name_and_summary(objective_list())};
       }},
      {"noises",
       [] {
         return ListTable{"noises", {"name", "summary"}, name_and_summary(noise_list())};
       }},
      {"presets", presets},
      {"config", config},
  };
  return list;
}

}  // namespace

std::vector<std::string> list_kinds() { return names_of(kinds()); }

ListTable list_table(const std::string& name) { return find_named("list", kinds(), name).make(); }

std::string to_markdown(const ListTable& table) {
  std::string head, rule, body;
  for (const std::string& column : table.columns) {
    head += "| " + column + " ";
    rule += "| --- ";
  }
  for (const auto& row : table.rows) {
    for (std::string cell : row) {
      for (size_t at = 0; (at = cell.find('|', at)) != std::string::npos; at += 2)
        cell.insert(at, "\\");
      body += "| " + cell + " ";
    }
    body += "|\n";
  }
  return head + "|\n" + rule + "|\n" + body;
}

std::string to_columns(const ListTable& table) {
  std::vector<std::vector<std::string>> rows = {table.columns};
  rows.insert(rows.end(), table.rows.begin(), table.rows.end());
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); i++) {
      size_t width = 0;
      for (const auto& other : rows) width = std::max(width, other[i].size());
      line += fmt::format("{:<{}}", row[i], width + 2);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string to_json(const ListTable& table) {
  auto array = nlohmann::ordered_json::array();
  for (const auto& row : table.rows) {
    nlohmann::ordered_json object;
    for (size_t i = 0; i < row.size(); i++) object[table.columns[i]] = row[i];
    array.push_back(object);
  }
  return array.dump(1) + "\n";
}

}  // namespace murmur
