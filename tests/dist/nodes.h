// tests/dist/nodes.h - runs of decentralised strategies: whole models, or a few parameters with
// gradients by hand; and what all nodes have, row by row.
#pragma once

#include <array>
#include <random>

#include "dist/decentralised.h"
#include "tests/dist/ranks.h"
#include "tests/dist/stacked.h"

namespace murmur {

// Strategies that go by a graph.
inline std::vector<std::string> decentralised() {
  std::vector<std::string> names;
  for (const StrategyEntry& entry : strategy_list()) {
    auto strategy = entry.make();
    if (dynamic_cast<Decentralised*>(strategy.get())) names.push_back(entry.name);
  }
  return names;
}

inline Experiment small(const std::string& optimizer, const Settings& options = {}) {
  Experiment x(optimizer, options);
  x.settings.model = {1, 2, 12, 6, 37, Arch::gpt2, false, false};
  x.settings.batch_size = 8;
  x.steps = 12;
  x.graph = {.name = "ring"};
  return x;
}

inline Experiment with(Experiment x, const std::string& strategy, const Settings& settings = {}) {
  x.strategy = strategy;
  x.strategy_settings = settings;
  if (strategy == "d2") x.graph.lazy = true;
  return x;
}

// Settings under which a node alone is the optimizer alone.
inline Settings without_memory(const std::string& strategy) {
  return strategy == "quasi_global" ? Settings{{"momentum", "0"}} : Settings{};
}

// Of a run: every node's weights in one row.
inline Stack rows_of(const Outcome& outcome, int nodes) {
  Stack rows = Stack(size_t(nodes));
  for (int i = 0; i < nodes; i++) {
    std::string suffix = i == 0 ? "" : " of rank " + std::to_string(i);
    for (const auto& [name, x] : outcome.weights) {
      bool first = name.find(" of rank ") == name.npos;
      if (i == 0 ? first : name.ends_with(suffix))
        rows[size_t(i)].insert(rows[size_t(i)].end(), x.begin(), x.end());
    }
  }
  return rows;
}
inline Stack trained(const Experiment& x, int nodes) { return rows_of(run(x, nodes), nodes); }

// Nodes without a model: some parameters, and gradients by hand.
struct Bare {
  std::string strategy = "gradient_tracking";
  Settings settings = {};
  TopologyOptions graph = {.name = "ring"};
  int nodes = 8;
  std::vector<Declared> declared = {{"a", {2, 3}}};
  NamedOptimizer use = configured("sgd", {{"momentum", "0"}});
  DType type = DType::f64;
  int64_t steps = 3;
  bool moves = true;  // the weights
  std::function<void(int64_t step, int rank, const Tensor& x, Tensor& g)> gradient = {};
};

struct Seen {
  Stack weights, tracker, tracked;
  Row common;  // weights
};
using See = std::function<void(int64_t step, const Seen& seen)>;

// `see` what all nodes have after every step.
inline Seen run(const Bare& bare, const See& see = {}) {
  std::vector<Seen> history(size_t(see ? bare.steps : 1));
  for (Seen& seen : history) seen.weights = seen.tracker = seen.tracked = Stack(size_t(bare.nodes));
  run_ranks("threads", World{bare.nodes, 60, Device::cpu}, [&](Communicator& c) {
    Threads one(1);
    auto strategy = make_strategy(bare.strategy);
    configure(*strategy, bare.strategy, bare.settings);
    strategy->graph = bare.graph;
    strategy->join(c);
    Parameters parameters;
    for (const Declared& d : bare.declared) parameters.add(d.name, d.shape, d.role, 0);
    parameters.allocate(1, bare.type);
    std::vector<Route> routes;
    for (Role role : kRoles) routes.push_back({role, bare.use});
    Share share = strategy->start(parameters, routes);
    Update update(parameters, routes, 0, share);
    strategy->attach(update);
    for (int64_t step = 1; step <= bare.steps; step++) {
      strategy->begin_step(step, 1);
      bare.gradient(step, c.rank(), parameters.values(), parameters.gradients());
      strategy->before_update();
      if (bare.moves) {
        update.step(step, 1);
        strategy->after_update();
      }
      if (!see && step < bare.steps) continue;
      Seen& seen = history[see ? size_t(step - 1) : 0];
      auto rank = size_t(c.rank());
      seen.weights[rank] = to_vector(parameters.values());
      Tensor common = strategy->common(parameters.values());
      if (rank == 0) seen.common = to_vector(common);
      for (const Strategy::State& s : strategy->state()) {
        if (s.name == "strategy.tracker") seen.tracker[rank] = to_vector(s.tensor);
        if (s.name == "strategy.tracked") seen.tracked[rank] = to_vector(s.tensor);
      }
    }
    if (!see || bare.type != DType::f64) return;
    for (const auto& [name, value] : strategy->health()) {
      CAPTURE(name);
      CHECK(value < 1e-12);
    }
  });
  for (size_t i = 0; see && i < history.size(); i++) see(int64_t(i) + 1, history[i]);
  return history.back();
}

inline double relative_error(const Row& x, const Row& expected) {
  Row difference = x;
  for (size_t p = 0; p < x.size(); p++) difference[p] -= expected[p];
  return norm(difference) / norm(expected);
}

// Gradients around 1 with heavy tails (Student's t, 2 degrees of freedom), from a circle of rows.
class HeavyTails {
 public:
  explicit HeavyTails(int64_t size, uint64_t seed = 5) {
    std::mt19937_64 random(seed);
    std::student_t_distribution<double> student(2);
    for (Row& row : rows_) {
      row.resize(size_t(size));
      for (double& v : row) v = 1 + student(random);
    }
  }
  const Row& row(int64_t step, int rank) const {
    return rows_[size_t(step * 7 + step / 61 * 5 + rank * 11) % rows_.size()];
  }

 private:
  std::array<Row, 61> rows_;
};

}  // namespace murmur
