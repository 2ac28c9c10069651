// dist/push_sum.cpp - gossip over directed graphs, where nobody needs to know who hears it
// (stochastic gradient push, Assran et al., arXiv 1811.10792).
//
//   z = x / s         what the node computes with
//   x <- A (x - u(z))         s <- A s         with s = 1 at first
//
// Columns of A sum to 1, rows perhaps not: then the mean of x alone would be a wrong one, and s
// says by how much. Where A is doubly stochastic s stays 1 and is not sent.
#include "dist/decentralised.h"
#include "dist/ownership.h"
#include "tensor/engine.h"

namespace murmur {
namespace {

const std::string kMass = "mass";

class PushSum final : public Decentralised {
 public:
  void suits(const TopologyReport& w, const Topology&) const override {
    if (!w.column_stochastic)
      throw InputError(
          "topology: push_sum needs columns that sum to 1; use --weights column, or no weights of "
          "your own");
    if (!w.row_stochastic && (mixing_.wire == "int8" || mixing_.keep < 1))
      throw InputError(
          "strategy.wire: int8 and keep need doubly stochastic weights; use fp32 or bf16");
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Share share = Decentralised::start(parameters, routes);
    mass_mixer_ = &add_mixer(kMass, mass_options());
    return share;
  }

  void before_update() override { engine(x_.device()).copy(weights(), before_); }
  void after_update() override {
    if (weight_mixer().row_stochastic()) return mix_weights();  // z is x
    Tensor& z = weights();
    const Engine& e = engine(z.device());
    e.scale(-1, before_, {z, true});
    e.scale(1, z, {x_, true});  // x - u(z)
    e.copy(x_, z);
    mix_weights();
    e.copy(z, x_);
    exchanging([&] { mass_mixer_->mix(step(), mass_); });
    e.scale(1 / item(mass_), x_, {z});
    parameters().refresh_shadow();
  }

  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    if (weight_mixer().row_stochastic()) return all;
    all.push_back({"strategy.pushed", x_, true});
    all.push_back({"strategy.mass", mass_, true});
    return all;
  }

  std::vector<std::string> kinds() const override {
    std::vector<std::string> all = Decentralised::kinds();
    all.push_back(kMass);
    return all;
  }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
            DType activations, int ranks) const override {
    Plan plan = Decentralised::plan(banks, routes, activations, ranks);
    Topology topology = make_topology(graph, ranks);
    if (report(topology).row_stochastic) return plan;
    plan.state_bytes += double(size_of(compute_type(activations))) * double(flat_size(banks)) +
                        double(size_of(DType::f64));
    double period = double(topology.rounds());
    for (int64_t step = 1; step <= topology.rounds(); step++) {
      Traffic one = traffic_of(topology, mass_options(), step, 1, DType::f64);
      plan.bytes += double(one.bytes) / period;
      plan.messages += double(one.messages) / period;
      plan.rounds += double(one.rounds) / period;
    }
    return plan;
  }

 private:
  MixingOptions mass_options() const { return {.rounds = mixing_.rounds}; }
  void restart() override {
    if (!x_) {
      x_ = like_weights();
      before_ = like_weights();
      mass_ = Tensor({1}, DType::f64);
    }
    engine(x_.device()).copy(weights(), x_);
    engine(Device::cpu).fill(mass_, 1);
  }

  Mixer* mass_mixer_ = nullptr;
  Tensor x_, before_, mass_;  // x; within a step z; s: (1) fp64 on the host
};

}  // namespace

std::unique_ptr<Strategy> make_push_sum() { return std::make_unique<PushSum>(); }

}  // namespace murmur
