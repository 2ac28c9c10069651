// dist/push_sum.cpp - gossip over directed graphs, where nobody needs to know who hears it
// (stochastic gradient push, Assran et al., arXiv 1811.10792).
//
//   z = x / s         what the node computes with
//   x <- A (x - u(z))         s <- A s         with s = 1 at first
//
// Columns of A sum to 1, rows perhaps not: then the mean of x alone would be a wrong one, and s
// says by how much. What nodes have in common is sum x / sum s: it goes the mean of all u, and
// mixing keeps it. The mean of z goes elsewhere. z and s are remembered, x is s z. Where A is
// doubly stochastic s stays 1 and is not sent.
#include "dist/collectives.h"
#include "dist/decentralised.h"
#include "tensor/ops.h"

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

  void before_update() override {
    if (pushes_) ops::copy(weights(), before_);
  }
  // x and s belong together: where a rank is lost between them, both are as they were.
  void after_update() override {
    if (!pushes_) return mix_weights();  // z is x
    Tensor& z = weights();
    ops::scale(mass() - 1, before_, {z, true});  // x - u(z)
    ops::copy(z, before_);
    Tensor s = Tensor::of({mass()}, {1}, DType::f64);
    exchanging([&] {
      weight_mixer().mix(step(), z);
      mass_mixer_->mix(step(), s);
    });
    if (lost()) {
      ops::copy(before_, z);
      weight_mixer().forget();
    } else {
      ops::copy(s, mass_);
    }
    ops::scale(1 / mass(), z, {z});
    parameters().refresh_shadow();
    mix_state();
  }

  double mass() const override { return item(mass_); }
  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    all.push_back({"strategy.mass", mass_, true});
    return all;
  }
  void resumed(int64_t) override { look(); }

  std::vector<std::string> kinds() const override {
    std::vector<std::string> all = Decentralised::kinds();
    all.push_back(kMass);
    return all;
  }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
            DType activations, int ranks) const override {
    Plan plan = Decentralised::plan(banks, routes, activations, ranks);
    Topology topology = make_topology(graph, ranks);
    plan.state_bytes += double(size_of(DType::f64));
    if (report(topology).row_stochastic) return plan;
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
    if (!before_) {
      before_ = like_weights();
      mass_ = Tensor({1}, DType::f64);
    }
    ops::fill(mass_, 1);
    pushes_ = !weight_mixer().row_stochastic();
  }
  // Those that are left keep their x and s: what they have in common stays what it is. Only the
  // unit of s changes, so that the sum is the number of nodes and the mean of all u counts in full.
  void repair() override {
    Tensor all = Tensor::of({mass()}, {1}, DType::f64);
    all_reduce(c(), kMass, {all});
    ops::fill(mass_, mass() * double(c().size()) / item(all));
    look();
  }
  // Is s to be sent? It may differ from 1 since an earlier graph.
  void look() {
    Tensor others = Tensor::of({double(mass() != 1)}, {1}, DType::f64);
    all_reduce(c(), kMass, {others});
    pushes_ = !weight_mixer().row_stochastic() || item(others) > 0;
  }

  Mixer* mass_mixer_ = nullptr;
  bool pushes_ = false;
  Tensor before_, mass_;  // within a step z, then x before mixing; s: (1) fp64 on the host
};

}  // namespace

std::unique_ptr<Strategy> make_push_sum() { return std::make_unique<PushSum>(); }

}  // namespace murmur
