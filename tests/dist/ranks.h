// tests/dist/ranks.h - runs on several ranks, and what comes out of them.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <mutex>

#include "dist/collectives.h"
#include "dist/replica.h"
#include "dist/transport.h"
#include "tensor/ops.h"
#include "tests/optim/training.h"

namespace murmur {

// A training run on made-up tokens.
struct Experiment {
  ReplicaSettings settings;
  std::string strategy = "local";
  Settings strategy_settings;
  TopologyOptions graph{.lazy = true};  // lazy suits every strategy
  std::vector<int> shares;  // by rank: whose share of each batch it gets; empty: its own
  int64_t steps = 20, evaluations = 0;

  Experiment(const std::string& optimizer, const Settings& options = {}, DType dtype = DType::f64) {
    settings.model = {3, 2, 20, 6, 37, Arch::gpt2, true, false};  // 37, 60, 80 rows: uneven
    settings.seed = 7;
    settings.activations = dtype;
    settings.batch_size = 9;
    settings.clip = 0.5;
    NamedOptimizer auxiliary = configured("adamw", {{"lr", "0.003"}});
    settings.routes = default_routes(configured(optimizer, options), auxiliary);
  }
};

struct Outcome {
  // Of ranks that train weights of their own: also those of the others, under "NAME of rank 1".
  std::map<std::string, std::vector<double>> weights;
  std::vector<double> losses;
  std::map<std::string, Traffic> traffic;        // sums over ranks
  std::vector<int64_t> state_bytes, flat_bytes;  // of the optimizers; of the weights
  std::vector<int64_t> strategy_bytes;           // of what the strategy remembers
};

inline Tensor made_up_tokens(int64_t sequences, int64_t block, int64_t vocabulary, uint64_t step,
                             uint64_t stream) {
  Tensor wide({sequences, block}, DType::f64), tokens({sequences, block}, DType::i32);
  ops::random_uniform(step, stream, 0, double(vocabulary), wide);
  ops::copy(wide, tokens);
  return tokens;
}

// `see` is called on every rank at the end.
inline Outcome run(const Experiment& x, int ranks, const std::string& transport = "threads",
                   const std::function<void(Replica&, Communicator&)>& see = {}) {
  Outcome outcome;
  std::mutex mutex;
  std::map<int, std::vector<double>> losses_of;  // by rank
  World world{ranks, 60, Device::cpu};
  run_ranks(transport, world, [&](Communicator& c) {
    auto strategy = make_strategy(x.strategy);
    configure(*strategy, x.strategy, x.strategy_settings);
    strategy->graph = x.graph;
    strategy->join(c);
    Replica replica(x.settings, c, *strategy);
    const GptConfig& m = x.settings.model;
    std::vector<double> losses;
    for (int64_t step = 1; step <= x.steps; step++) {
      c.at_step(step);
      Tensor tokens = made_up_tokens(x.settings.batch_size, m.block_size, m.vocab_size,
                                     uint64_t(step), 1),
             targets = made_up_tokens(x.settings.batch_size, m.block_size, m.vocab_size,
                                      uint64_t(step), 2);
      int share = x.shares.empty() ? c.rank() : x.shares[size_t(c.rank())];
      int64_t begin = share_begin(x.settings.batch_size, share, c.size()),
              end = begin + replica.sequences();
      ops::copy(tokens.slice(begin, end), replica.tokens);
      ops::copy(targets.slice(begin, end), replica.targets);
      replica.set_step(step, 1);
      replica.step();
      losses.push_back(item(replica.loss()));
    }
    if (see) see(replica, c);
    std::lock_guard lock(mutex);
    losses_of[c.rank()] = losses;
    for (const auto& [what, traffic] : c.traffic()) outcome.traffic[what] += traffic;
    outcome.state_bytes.push_back(replica.update.state_bytes());
    outcome.strategy_bytes.push_back(0);
    for (const Strategy::State& s : strategy->state())
      outcome.strategy_bytes.back() += int64_t(s.tensor.bytes());
    outcome.flat_bytes.push_back(int64_t(replica.model.parameters.values().bytes()));
    const Parameters& parameters = replica.model.parameters;
    for (const Parameter& p : parameters.all()) {
      if (p.rows == 0) continue;
      bool other = strategy->own_weights() && c.rank() > 0;
      std::vector<double>& all =
          outcome.weights[p.name + (other ? " of rank " + std::to_string(c.rank()) : "")];
      all.resize(size_t(p.shape.numel()));
      std::vector<double> own = to_vector(parameters.value(p));
      int64_t begin = p.shape.rank() == 1 ? 0 : p.first_row * p.shape.cols();
      std::copy(own.begin(), own.end(), all.begin() + begin);
    }
  });
  for (const auto& [rank, losses] : losses_of) {
    outcome.losses.resize(losses.size());
    for (size_t i = 0; i < losses.size(); i++) outcome.losses[i] += losses[i];
  }
  return outcome;
}

inline double distance(const Outcome& a, const Outcome& b) {
  double largest = 0;
  REQUIRE(a.weights.size() == b.weights.size());
  for (const auto& [name, x] : a.weights) {
    const std::vector<double>& y = b.weights.at(name);
    REQUIRE(x.size() == y.size());
    for (size_t i = 0; i < x.size(); i++) largest = std::max(largest, std::abs(x[i] - y[i]));
  }
  return largest;
}

}  // namespace murmur
