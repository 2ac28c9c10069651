// dist/decentralised.cpp - the graph, its streams of messages, and what they will carry.
#include "dist/decentralised.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "dist/ownership.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

const std::string kWeights = "weights", kMixedState = "mixed state";

}  // namespace

std::vector<Option> Decentralised::options() {
  return {
      {"wire", &mixing_.wire,
       "what travels: numbers as they are, bf16, or int8 in blocks of 64 (weights then as "
       "differences to replicas)",
       0, 0, kWires},
      {"gossip_rounds", &mixing_.rounds, "of mixing, one after the other", 1, 1000},
      {"chebyshev", &mixing_.chebyshev, "rounds accelerated; pays from four on"},
      {"keep", &mixing_.keep, "share of the weights' differences that is sent (CHOCO)", 1e-6, 1},
      {"gamma", &mixing_.gamma,
       "step towards the replicas of CHOCO; 0: 1 for int8, 0.15 where keep is below 1", 0, 1},
      {"mix_state", &mix_state_,
       "name of an optimizer state that is mixed as well, such as v; empty: none"}};
}

MixingOptions Decentralised::options_of(bool replicas) const {
  MixingOptions o = mixing_;
  o.replicas = replicas && (o.wire == "int8" || o.keep < 1);
  if (!o.replicas) o.keep = 1;
  if (o.gamma == 0) o.gamma = o.keep < 1 ? 0.15 : 1;
  if (o.keep < 1 && o.wire != "fp32")
    throw InputError("strategy.keep: what is left is sent as fp32; leave strategy.wire out");
  if (o.replicas && o.chebyshev)
    throw InputError("strategy.chebyshev: does not go with replicas (wire int8, keep)");
  return o;
}

// Second moments are to stay above 0: no polynomial of W, which has negative entries, and no wire
// that might round a number up by more than a node keeps of it.
MixingOptions Decentralised::state_options() const { return {.rounds = mixing_.rounds}; }

void Decentralised::suits(const TopologyReport& w, const Topology&) const {
  if (w.doubly_stochastic) return;
  throw InputError(
      "topology: its weights are not doubly stochastic, so that the mean would drift; use strategy "
      "push_sum, or other weights");
}

void Decentralised::check_graph() const {
  if (alone()) return;
  TopologyReport w = report(*topology_);
  suits(w, *topology_);
  if (!mix_state_.empty() && !w.row_stochastic)
    throw InputError("strategy.mix_state: needs doubly stochastic weights");
  if (!mix_state_.empty() && !w.positive_diagonal)
    throw InputError(
        "strategy.mix_state: a node's own weight is not above 0 in this graph, so that a second "
        "moment could fall below it; use --weights auto, or add --lazy-weights true");
  double bound = eigenvalues_above();
  std::optional<double> smallest;
  if (bound > -1) smallest = smallest_eigenvalue(*topology_, options_of(true));
  if (!smallest || *smallest > bound + 1e-9) return;
  std::vector<std::string> advice;  // all of it leaves none below 0
  if (mixing_.chebyshev) advice.push_back("leave strategy.chebyshev out");
  if (!graph.lazy) advice.push_back("add --lazy-weights true");
  throw InputError(
      fmt::format("topology: this strategy diverges where mixing has an eigenvalue at or below "
                  "{:.4f}, and here "
                  "it has {:.4f}; {}",
                  bound, *smallest, fmt::join(advice, " and ")));
}

Share Decentralised::start(Parameters& parameters, const std::vector<Route>& routes) {
  Strategy::start(parameters, routes);
  topology_ = make_topology(graph, c().size());
  check_graph();
  add_mixer(kWeights, options_of(true)).begin_memory(weights());
  if (!mix_state_.empty()) state_mixer_ = &add_mixer(kMixedState, state_options());
  restart();
  return {};
}

Mixer& Decentralised::add_mixer(const std::string& what, const MixingOptions& options) {
  mixers_.push_back(std::make_unique<Mixer>(c(), what, *topology_, options));
  return *mixers_.back();
}

Tensor Decentralised::like_weights() const {
  return Tensor::zeros(weights().shape(), weights().dtype(), weights().device());
}

void Decentralised::begin_step(int64_t step, double schedule_factor) {
  step_ = step;
  factor_ = schedule_factor;
}

void Decentralised::weights_replaced() {
  for (auto& mixer : mixers_) mixer->use(*topology_);
  weight_mixer().begin_memory(weights());
  restart();
}

std::vector<Tensor> Decentralised::state_to_mix() const {
  std::vector<Tensor> found;
  for (const Update::NamedState& s : update_->named_state()) {
    if (s.name.ends_with("." + mix_state_)) found.push_back(s.tensor.view({s.tensor.numel()}));
  }
  if (found.empty()) {
    std::set<std::string> names;
    for (const Update::NamedState& s : update_->named_state())
      names.insert(s.name.substr(s.name.rfind('.') + 1));
    throw InputError(
        fmt::format("strategy.mix_state: no optimizer of this run has a state '{}'; they have {}",
                    mix_state_, fmt::join(names, ", ")));
  }
  return found;
}

void Decentralised::mix_weights() {
  exchanging([&] { weight_mixer().mix(step_, weights()); });
  parameters().refresh_shadow();
  mix_state();
}

void Decentralised::mix_state() {
  if (!state_mixer_ || alone()) return;
  exchanging([&] {  // one message of them all
    std::vector<Tensor> parts = state_to_mix();
    int64_t size = 0;
    for (const Tensor& part : parts) size += part.numel();
    Tensor all({size}, weights().dtype(), weights().device());
    auto each = [&](const auto& move) {
      int64_t at = 0;
      for (Tensor& part : parts) {
        Tensor of_all = all.slice(at, at + part.numel());
        move(part, of_all);
        at += part.numel();
      }
    };
    each([&](Tensor& part, Tensor& of_all) { ops::copy(part, of_all); });
    state_mixer_->mix(step_, all);
    each([&](Tensor& part, Tensor& of_all) { ops::copy(of_all, part); });
  });
}

void Decentralised::give_up() {
  lost_ = true;
  weight_mixer().hold();
}

std::string Decentralised::members_changed(bool joined) {
  lost_ = false;
  std::vector<int> gone;
  for (int node = 0; node < c().nodes(); node++) {
    if (std::find(c().members().begin(), c().members().end(), node) == c().members().end())
      gone.push_back(node);
  }
  Survivors left = without(graph, make_topology(graph, c().nodes()), gone);
  topology_ = left.topology;
  check_graph();
  if (joined) weight_mixer().forget();
  weight_mixer().settle(weights());
  for (auto& mixer : mixers_) mixer->use(*topology_);
  if (joined) restart();
  repair();
  return left.done;
}

void Decentralised::leave_out(const std::set<int>& ranks) {
  if (!ranks.empty() && topology_->directed()) {
    throw InputError(
        "faults: in a directed graph an edge cannot be left out for a step; use a symmetric one");
  }
  for (auto& mixer : mixers_) mixer->leave_out(ranks);
}

std::vector<Strategy::State> Decentralised::state() {
  std::vector<State> all;
  for (auto& mixer : mixers_) {
    const char* names[] = {"replica", "pull"};
    std::vector<Tensor> memory = mixer->memory();
    for (size_t i = 0; i < memory.size(); i++)
      all.push_back({std::string("strategy.") + names[i], memory[i], true});
  }
  return all;
}

// `pull` is a sum over its edges.
std::string Decentralised::graph_of_state() const {
  if (!options_of(true).replicas) return {};
  std::string edges;
  for (int to = 0; to < topology_->nodes(); to++) {
    for (const Topology::In& in : topology_->in(0, to))
      edges += fmt::format("{} {} {}\n", to, in.peer, in.weight);
  }
  return edges;
}

std::vector<std::string> Decentralised::kinds() const {
  std::vector<std::string> all = {kWeights};
  for (const std::string& other : other_kinds()) all.push_back(other);
  if (!mix_state_.empty()) all.push_back(kMixedState);
  return all;
}

Plan Decentralised::plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
                         DType activations, int ranks) const {
  Plan plan;
  Topology topology = make_topology(graph, ranks);
  DType type = compute_type(activations);
  int64_t period = topology.rounds(), n = flat_size(banks);
  int64_t mixed = 0;  // elements of optimizer state
  for (size_t i = 0; i < banks.size(); i++) {
    plan.state_bytes += double(size_of(type)) * state_elements(banks[i], *routes[i]);
    Bank blocks = with_row_blocks(banks[i], routes[i]->row_blocks);
    for (const StateShape& s : routes[i]->use.optimizer->state(blocks))
      if (s.name == mix_state_) mixed += s.shape.numel();
  }
  Traffic all;
  for (int64_t step = 1; step <= period; step++) {
    all += traffic_of(topology, options_of(true), step, n, type);
    for (size_t i = 0; i < other_kinds().size(); i++)
      all += traffic_of(topology, options_of(false), step, n, type);
    if (mixed > 0) all += traffic_of(topology, state_options(), step, mixed, type);
  }
  plan.bytes = double(all.bytes) / double(period);
  plan.messages = double(all.messages) / double(period);
  plan.rounds = double(all.rounds) / double(period);
  int memory = remembers() + (options_of(true).replicas ? 2 : 0);
  plan.state_bytes += double(size_of(type)) * double(n) * memory;
  plan.flops = orthogonalization_flops(owners(banks, routes, 1), banks, routes)[0];
  return plan;
}

int64_t Decentralised::period(int ranks) const { return make_topology(graph, ranks).rounds(); }

}  // namespace murmur
