// dist/gossip.cpp - an update of each node's own, and the neighbours' weights (D-PSGD, Lian et al.,
// arXiv 1705.09056). With u(x) what the optimizer would take off x:
//
//   atc            x <- W (x - u(x))         adapt, then combine
//   cta            x <- W x - u(x)           combine, then adapt
//
// With `overlap` messages travel while the gradient is computed. cta loses nothing by it; atc then
// mixes a step late: x_{t+1} = x_t - u(x_t) + (W - I) x_{t-1}. For each eigenvalue q of W
// disagreement follows r^2 - r + 1 - q = 0, which shrinks where q > 0: it wants lazy weights.
#include "dist/decentralised.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Gossip final : public Decentralised {
 public:
  std::vector<Option> options() override {
    std::vector<Option> all = Decentralised::options();
    all.push_back(
        {"order", &order_, "adapt then combine, or combine then adapt", 0, 0, {"atc", "cta"}});
    all.push_back({"overlap", &overlap_,
                   "messages travel while gradients are computed; atc then mixes a step late"});
    return all;
  }

  void suits(const TopologyReport& w, const Topology& topology) const override {
    Decentralised::suits(w, topology);
    if (!overlap_) return;
    if (mixing_.rounds > 1 || mixing_.wire == "int8" || mixing_.keep < 1)
      throw InputError("strategy.overlap: goes with one gossip round of fp32 or bf16");
    if (late() && (topology.rounds() > 1 || topology.directed()))
      throw InputError(
          "strategy.overlap: mixing a step late needs a static symmetric graph; use one, with "
          "--lazy-weights true, or strategy.order cta");
  }
  double eigenvalues_above() const override { return late() ? 0 : -1; }

  void begin_step(int64_t step, double factor) override {
    Decentralised::begin_step(step, factor);
    if (overlap_ && !late()) exchanging([&] { weight_mixer().begin(step, weights()); });
  }
  void before_update() override {
    if (order_ == "atc") return late() ? send_late() : void();
    if (!overlap_) return mix_weights();
    exchanging([&] { weight_mixer().finish(weights()); });
    parameters().refresh_shadow();
    mix_state();
  }
  void after_update() override {
    if (late())
      finish_late();
    else if (order_ == "atc")
      mix_weights();
  }

  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    if (late()) all.push_back({"strategy.sent", sent_, true});
    return all;
  }
  void resumed(int64_t step) override {
    if (!late() || step == 0) return;
    exchanging([&] { weight_mixer().begin(step, sent_); });
    under_way_ = true;
  }

 private:
  bool late() const { return overlap_ && order_ == "atc"; }
  int remembers() const override { return late() ? 1 : 0; }
  void restart() override {
    if (!late()) return;
    under_way_ = false;
    if (!sent_) sent_ = like_weights(), sent_before_ = like_weights();
  }

  // x_t goes off, while x_{t-1}, sent a step ago, is still expected.
  void send_late() {
    std::swap(sent_, sent_before_);
    ops::copy(weights(), sent_);
    exchanging([&] { weight_mixer().begin(step(), sent_); });
  }
  void finish_late() {
    if (under_way_) exchanging([&] { weight_mixer().finish(weights()); });
    under_way_ = true;
    parameters().refresh_shadow();
    mix_state();
  }

  std::string order_ = "atc";
  bool overlap_ = false, under_way_ = false;
  Tensor sent_, sent_before_;  // what travels: x_t and x_{t-1}
};

}  // namespace

std::unique_ptr<Strategy> make_gossip() { return std::make_unique<Gossip>(); }

}  // namespace murmur
