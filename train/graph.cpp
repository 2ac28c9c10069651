// train/graph.cpp - a graph in words and in JSON.
#include "train/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "dist/mixing.h"
#include "nn/model.h"
#include "tensor/nearest.h"
#include "train/config.h"

namespace murmur {
namespace {

struct Wire {
  std::string name;
  double bytes;  // of one element
};
const std::vector<Wire> kWireSizes = {{"fp32", 4}, {"bf16", 2}, {"int8", 1 + 2.0 / 64}};
constexpr int64_t kVocabulary = 256;  // where the preset leaves it to the data

const Wire& find_wire(const std::string& name) { return find_named("wire", kWireSizes, name); }

// Nothing of the model is allocated.
int64_t parameters_of(const std::string& preset) {
  Config config = make_config({{"preset", preset}});
  Model shapes(model_config(config, kVocabulary), 0, DType::f32, Device::cpu, [](const Bank& bank) {
    return Cut{0, bank.count, 0, 0};
  });
  return shapes.parameters.count();
}

// Of the node that sends most, a round.
double messages_of(const Topology& t) {
  double most = 0;
  for (int node = 0; node < t.nodes(); node++) {
    double sent = 0;
    for (int r = 0; r < t.rounds(); r++) sent += double(t.out(r, node).size());
    most = std::max(most, sent / t.rounds());
  }
  return most;
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KB", "MB", "GB", "TB"};
  int unit = 0;
  for (; bytes >= 999.5 && unit < 4; unit++) bytes /= 1000;
  return fmt::format("{:.3g} {}", bytes, units[unit]);
}

std::string yes(bool value) { return value ? "yes" : "no"; }

// At most kShown rows and columns.
constexpr int kShown = 16;
std::string matrix_text(const Topology& t, int round) {
  int n = t.nodes(), shown = n <= kShown ? n : kShown / 2;
  std::string text;
  for (int i = 0; i < shown; i++) {
    text += " ";
    for (int j = 0; j < shown; j++) {
      double w = t.weight(round, i, j);
      text += w == 0 ? "     ." : fmt::format(" {:5.3f}", w);
    }
    text += shown < n ? "  ..\n" : "\n";
  }
  if (shown < n) text += fmt::format("  .. {} rows and columns more\n", n - shown);
  return text;
}

std::string matrices_text(const Topology& t) {
  constexpr int kMostRows = 64;
  if (t.rounds() == 1)
    return "W, row i: what node i makes of its own and others' values\n" + matrix_text(t, 0);
  std::string text;
  int shown = t.nodes() * t.rounds() <= kMostRows ? t.rounds() : 1;
  for (int r = 0; r < shown; r++)
    text += fmt::format("W of round {} of {}\n", r + 1, t.rounds()) + matrix_text(t, r);
  return text;
}

// Numbers that are zero but for rounding are shown as such.
double clean(double value) { return std::abs(value) < 1e-12 ? 0 : value; }

std::string checks_text(const ExaminedGraph& g) {
  const TopologyReport& r = g.report;
  const Topology& t = g.topology;
  std::string text;
  auto line = [&](const std::string& what, const std::string& value) {
    text += fmt::format("{:<34}{}\n", what, value);
  };
  line("rows sum to 1, columns sum to 1", yes(r.row_stochastic) + ", " + yes(r.column_stochastic));
  line("symmetric, own weights positive", yes(r.symmetric) + ", " + yes(r.positive_diagonal));
  line("connected", yes(r.connected));
  bool averages = r.doubly_stochastic;
  line(averages ? "rho = ||W - J||, gap" : "|second eigenvalue|, gap",
       fmt::format("{:.10g}, {:.10g}{}", clean(r.rho), r.gap,
                   t.rounds() > 1 ? fmt::format(" over {} rounds", t.rounds()) : ""));
  if (t.rounds() > 1 && !r.exact) line("rho a round", fmt::format("{:.10g}", r.rho_per_round));
  if (r.smallest_eigenvalue) {
    double low = clean(*r.smallest_eigenvalue);
    line(
        "smallest eigenvalue",
        fmt::format("{:.10g}: {}", low,
                    low > 1e-12            ? "fit for D2 and for mixing one step late"
                    : low > -1. / 3 + 1e-9 ? "fit for D2 (above -1/3), not for mixing one step late"
                                           : "not above -1/3: for D2 use --lazy-weights"));
  }
  if (r.exact) {
    line("rounds to agree", fmt::format("{}, exactly", t.nodes() == 1 ? 0 : t.rounds()));
  } else {
    for (auto [name, factor] : {std::pair{"1e-3", 1e-3}, {"1e-6", 1e-6}}) {
      auto plain = rounds_to(r, t.rounds(), factor);
      auto fast = chebyshev_rounds_to(r, factor);
      line(fmt::format("rounds to {} of a disagreement", name),
           (plain ? std::to_string(*plain) : "never") +
               (fast ? fmt::format("; {} with Chebyshev's acceleration", *fast) : ""));
    }
  }
  return text;
}

std::string traffic_text(const ExaminedGraph& g) {
  std::string text = fmt::format(
      "\nwhat the busiest node sends in a step, {} ({:.3g}M "
      "parameters)\n{:<34}{:>10}{:>12}{:>16}\n",
      g.request.preset, double(g.parameters) / 1e6, "", "messages", "bytes", "per parameter");
  for (const Sending& row : g.traffic) {
    text += fmt::format("  {:<32}{:>10.6g}{:>12}{:>16.3f}\n", row.what, row.messages,
                        bytes_text(row.bytes), row.bytes / double(g.parameters));
  }
  if (g.topology.nodes() == 1) return text;
  if (g.parameters > kPiece)
    text += fmt::format("A mixing's messages go in pieces of {} numbers each.\n", kPiece);
  double times = g.traffic[1].bytes / g.traffic[3].bytes;
  text += fmt::format(
      "Gradient tracking on this graph sends {:.{}f} times the bytes of a sharded update in bf16, "
      "and every\nnode orthogonalises every matrix.{}\n",
      times, times < 10 ? 1 : 0,
      times >= 1 ? " Gossip is not cheaper: what it saves is waiting for everybody." : "");
  return text;
}

nlohmann::ordered_json rows_of(const SquareMatrix& m) {
  auto rows = nlohmann::ordered_json::array();
  for (int i = 0; i < m.size; i++) rows.push_back(std::vector<double>(m.row(i), m.row(i) + m.size));
  return rows;
}

std::vector<std::set<int>> neighbours_of(const Topology& t) {
  std::vector<std::set<int>> hears(t.nodes());
  for (int r = 0; r < t.rounds(); r++) {
    for (int node = 0; node < t.nodes(); node++) {
      for (const Topology::In& in : t.in(r, node)) hears[node].insert(in.peer);
    }
  }
  return hears;
}

}  // namespace

std::vector<std::string> wire_names() { return names_of(kWireSizes); }

ExaminedGraph examine(const GraphRequest& request) {
  const Wire& wire = find_wire(request.wire);
  Topology topology = make_topology(request.topology, int(request.nodes));
  double count = double(parameters_of(request.preset)), n = double(request.nodes);
  double messages = messages_of(topology), bytes = messages * count * wire.bytes;
  double shares = 2 * (n - 1) / n * count;  // elements of a reduce-scatter and an all-gather
  return {request,
          topology,
          report(topology),
          int64_t(count),
          {{"one mixing, " + wire.name, messages, bytes},
           {"gradient tracking, " + wire.name, 2 * messages, 2 * bytes},
           {"all-reduce, fp32", 2 * (n - 1), 4 * shares},
           {"sharded update, bf16", 2 * (n - 1), 2 * shares}}};
}

std::string graph_text(const ExaminedGraph& g) {
  const std::string& name = g.request.topology.name;
  std::string shape;
  if (name == "torus" || name == "grid") {
    auto [rows, columns] = grid_shape(g.topology.nodes());
    shape = fmt::format(" ({} x {})", rows, columns);
  }
  return fmt::format("{}{}, {} nodes, weights {}{}{}\n\n", name, shape, g.topology.nodes(),
                     g.request.topology.weights, g.request.topology.lazy ? ", lazy" : "",
                     g.topology.directed() ? "; directed" : "") +
         matrices_text(g.topology) + "\n" + checks_text(g) + traffic_text(g);
}

std::string graph_json(const ExaminedGraph& g) {
  const TopologyReport& r = g.report;
  const Topology& t = g.topology;
  nlohmann::ordered_json json;
  json["topology"] = g.request.topology.name;
  json["weights"] = g.request.topology.weights;
  json["lazy_weights"] = g.request.topology.lazy;
  json["nodes"] = t.nodes();
  json["rounds"] = t.rounds();
  json["matrix"] = rows_of(mixing_product(t));
  if (t.rounds() > 1) {
    for (int round = 0; round < t.rounds(); round++)
      json["matrices"].push_back(rows_of(mixing_matrix(t, round)));
  }
  json["neighbours"] = neighbours_of(t);
  json["directed"] = t.directed();
  json["symmetric"] = r.symmetric;
  json["row_stochastic"] = r.row_stochastic;
  json["column_stochastic"] = r.column_stochastic;
  json["doubly_stochastic"] = r.doubly_stochastic;
  json["positive_diagonal"] = r.positive_diagonal;
  json["connected"] = r.connected;
  json["rho"] = r.rho;
  json["rho_per_round"] = r.rho_per_round;
  json["gap"] = r.gap;
  json["exact"] = r.exact;
  json["smallest_eigenvalue"] = nullptr;
  if (r.smallest_eigenvalue) json["smallest_eigenvalue"] = *r.smallest_eigenvalue;
  for (auto [key, factor] : {std::pair{"1e-3", 1e-3}, {"1e-6", 1e-6}}) {
    auto plain = rounds_to(r, t.rounds(), factor), fast = chebyshev_rounds_to(r, factor);
    json["rounds_to"][key] = plain ? nlohmann::ordered_json(*plain) : nullptr;
    json["chebyshev_rounds_to"][key] = fast ? nlohmann::ordered_json(*fast) : nullptr;
  }
  json["preset"] = g.request.preset;
  json["parameters"] = g.parameters;
  json["wire"] = g.request.wire;
  json["messages"] = g.traffic[0].messages;
  json["bytes"] = g.traffic[0].bytes;
  for (const Sending& row : g.traffic)
    json["traffic"].push_back(
        {{"what", row.what}, {"messages", row.messages}, {"bytes", row.bytes}});
  return json.dump() + "\n";
}

}  // namespace murmur
