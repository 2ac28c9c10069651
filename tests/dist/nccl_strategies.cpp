// tests/dist/nccl_strategies.cpp - some parameters, gradients by hand, and a checkpoint half-way.
#include "tests/dist/nccl_strategies.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dist/decentralised.h"
#include "dist/disagreement.h"
#include "dist/transport.h"
#include "optim/registry.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

using Settings = std::map<std::string, std::string>;

constexpr int64_t kSteps = 4;

struct Case {
  std::string strategy;
  Settings settings = {};
  std::string optimizer = "sgd";
  TopologyOptions graph = {.lazy = true};  // lazy suits all of them
  bool large = false;                      // more than one piece (dist/mixing.h)
  std::string name() const {
    std::string text = strategy + " on " + graph.name + " with " + optimizer;
    for (const auto& [key, value] : settings) text += " " + key + "=" + value;
    return text;
  }
  // Where numbers are rounded to fewer digits, or chosen by size, those that lie between two may
  // go either way. Differences of weights have fewer digits than weights.
  double tolerance(const std::string& tensor) const {
    auto wire = settings.find("wire");
    bool exact = settings.count("keep") == 0 && (wire == settings.end() || wire->second == "fp32");
    return !exact ? 2e-3 : tensor == "strategy.way" || tensor == "disagreement" ? 1e-4 : 1e-5;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const StrategyEntry& entry : strategy_list()) {
    if (!dynamic_cast<Decentralised*>(entry.make().get())) continue;
    for (const Settings& settings : {Settings{},
                                     {{"wire", "bf16"}},
                                     {{"wire", "int8"}},
                                     {{"keep", "0.3"}},
                                     {{"gossip_rounds", "3"}, {"chebyshev", "true"}}}) {
      if (entry.name == "d2" && settings.count("keep")) continue;  // refused, since it diverges
      all.push_back({entry.name, settings});
    }
    all.push_back({entry.name, {{"mix_state", "v"}}, "adamw"});
  }
  for (const char* wire : {"fp32", "bf16"}) {
    for (const char* order : {"atc", "cta"})
      all.push_back({"gossip", {{"order", order}, {"overlap", "true"}, {"wire", wire}}});
    all.push_back({"push_sum", {{"wire", wire}}, "sgd", {.name = "star", .weights = "column"}});
    all.push_back({"gossip", {{"wire", wire}}, "sgd", {.lazy = true}, true});
  }
  all.push_back({"gossip", {{"order", "cta"}, {"mix_state", "m"}}, "sen"});
  all.push_back({"gossip", {{"wire", "int8"}}, "sgd", {.lazy = true}, true});
  all.push_back({"gossip", {}, "nsgd", {.name = "one_peer_exponential"}});
  all.push_back({"gradient_tracking", {{"order", "cta"}, {"momentum", "0.8"}}});
  all.push_back({"gradient_tracking", {{"order", "cta"}, {"overlap", "true"}}});
  all.push_back({"quasi_global", {{"nesterov", "true"}}});
  return all;
}

// A node: what Replica is, without a model.
class Node {
 public:
  Node(const Case& x, Communicator& c, Device device)
      : strategy(make_strategy(x.strategy)), c_(c), device_(device) {
    configure(*strategy, x.strategy, x.settings);
    strategy->graph = x.graph;
    strategy->join(c);
    if (x.large) parameters.add("large", {530, 500}, Role::matrix, 1);
    for (const char* name : {"a", "b"}) parameters.add(name, {7, 9}, Role::matrix, 1);
    parameters.add("c", {33, 5}, Role::embedding, 1);
    parameters.add("d", {19}, Role::vector, 1);
    parameters.allocate(3, DType::f32, device);
    std::vector<Route> routes;
    for (Role role : kRoles) routes.push_back({role, {x.optimizer, make_optimizer(x.optimizer)}});
    Share share = strategy->start(parameters, routes);
    Clip clip{1, 0.1, x.optimizer == "nsgd"};
    update = std::make_unique<Update>(parameters, routes, clip, share);
    strategy->attach(*update);
  }

  // The gradient of step t: a tenth of the weights, which pulls them to 0, and numbers of the
  // rank's own.
  void step(int64_t t) {
    c_.at_step(t);
    strategy->begin_step(t, 1);
    update->set_step(t, 1);
    for (const Bank& bank : parameters.banks()) {
      Tensor noise(bank.gradient.shape()), g = bank.gradient;
      ops::random_normal(uint64_t(t), uint64_t(c_.rank()) * 100 + uint64_t(bank.rows), 0, 1, noise);
      ops::copy(noise, g);
      ops::scale(0.1, bank.value, {g, true});
    }
    strategy->before_update();
    update->apply();
    strategy->after_update();
  }

  // All that a checkpoint holds of this node, by name.
  std::map<std::string, Tensor> state() const {
    std::map<std::string, Tensor> all = {{"weights", parameters.values()}};
    for (const Update::NamedState& s : update->named_state()) all[s.name] = s.tensor;
    for (const Strategy::State& s : strategy->state()) all[s.name] = s.tensor;
    return all;
  }

  Parameters parameters;
  std::unique_ptr<Strategy> strategy;
  std::unique_ptr<Update> update;

 private:
  Communicator& c_;
  Device device_;
};

// Copies of a node's tensors on the host, and numbers about all of them.
using Seen = std::map<std::string, std::vector<double>>;

Seen seen(Node& node, Communicator& c) {
  Seen all;
  for (const auto& [name, tensor] : node.state()) all[name] = to_vector(tensor);
  node.strategy->with_common_weights([&] { all["mean"] = to_vector(node.parameters.values()); });
  Tensor common = node.strategy->common(node.parameters.values());
  Disagreement apart = disagreement(c, node.parameters, common);
  all["disagreement"] = {apart.frobenius, apart.spectral};
  for (const auto& [name, value] : node.strategy->health())
    check(value < 1e-5, [&] { return fmt::format("{} is {}", name, value); });
  return all;
}

// kSteps in one go; or another node goes on from what the first one had half-way.
Seen run(const Case& x, Communicator& c, Device device, bool halved) {
  auto node = std::make_unique<Node>(x, c, device);
  for (int64_t t = 1; t <= kSteps; t++) {
    node->step(t);
    if (!halved || t != kSteps / 2) continue;
    std::map<std::string, Tensor> saved;
    for (const auto& [name, tensor] : node->state()) {
      saved[name] = Tensor(tensor.shape(), tensor.dtype());
      ops::copy(tensor, saved[name]);
    }
    c.barrier();  // nothing of the first node is under way any more
    node = std::make_unique<Node>(x, c, device);
    auto restore = [&](const std::string& name, Tensor tensor) {
      ops::copy(saved.at(name), tensor);
    };
    restore("weights", node->parameters.values());
    for (const Update::NamedState& s : node->update->named_state()) restore(s.name, s.tensor);
    node->strategy->weights_replaced();
    for (const Strategy::State& s : node->strategy->state()) restore(s.name, s.tensor);
    node->strategy->resumed(t);
  }
  Seen all = seen(*node, c);
  c.barrier();
  return all;
}

// |x - expected| / |expected|
double difference(const std::vector<double>& x, const std::vector<double>& expected) {
  double apart = x.size() == expected.size() ? 0 : INFINITY, size = 1e-30;
  for (size_t i = 0; i < x.size() && apart < INFINITY; i++) {
    apart += (x[i] - expected[i]) * (x[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::isnan(apart) ? INFINITY : std::sqrt(apart / size);
}

}  // namespace

int check_strategies(Communicator& c) {
  int checks = 0;
  for (const Case& x : cases()) {
    Seen expected;
    std::mutex mutex;
    run_ranks("threads", {c.size(), 60, Device::cpu}, [&](Communicator& thread) {
      Seen one = run(x, thread, Device::cpu, false);
      std::lock_guard lock(mutex);
      if (thread.rank() == c.rank()) expected = std::move(one);
    });
    auto compare = [&](const Seen& got, const Seen& want, bool to_the_bit, const char* what) {
      for (const auto& [name, values] : want) {
        auto found = got.find(name);
        double apart = found == got.end() ? INFINITY : difference(found->second, values);
        double most = to_the_bit ? 0 : x.tolerance(name);
        check(apart <= most, [&] {
          return fmt::format("{}: {}: '{}' differs by {} (at most {})", x.name(), what, name, apart,
                             most);
        });
        checks++;
      }
    };
    Seen straight = run(x, c, Device::cuda, false);
    compare(straight, expected, false, "beside the CPU");
    compare(run(x, c, Device::cuda, true), straight, true, "from a checkpoint");
  }
  return checks;
}

}  // namespace murmur
