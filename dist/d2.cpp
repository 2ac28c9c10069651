// dist/d2.cpp - D2, or exact diffusion (Tang et al., arXiv 1803.07068; Yuan et al., arXiv
// 1702.05122): one exchange, and no bias from data that differ between nodes.
//
//   p_t = x_t - u(x_t)                           what the optimizer makes of x_t
//   x_{t+1} = W (p_t + x_t - p_{t-1})            with p_{-1} = x_0: the first step is plain
//
// With u = lr g this is x_{t+1} = W (2 x_t - x_{t-1} - lr (g_t - g_{t-1})). W is what a step's
// mixing applies, all its rounds, and is to be static and symmetric. For each eigenvalue q of it
// disagreement follows r^2 - 2 q r + q = 0, which shrinks where q > -1/3. Metropolis rings of even
// size lie exactly on that and want lazy weights.
#include "dist/decentralised.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class D2 final : public Decentralised {
 public:
  void suits(const TopologyReport& w, const Topology& topology) const override {
    Decentralised::suits(w, topology);
    if (topology.rounds() > 1 || topology.directed())
      throw InputError(
          "topology: d2 needs a static, symmetric graph; use ring, torus, complete, ..");
    if (mixing_.keep < 1)
      throw InputError(
          "strategy.keep: d2 diverges where only a share is sent; use strategy.wire int8, or "
          "gossip");
  }
  double eigenvalues_above() const override { return -1.0 / 3; }

  void before_update() override { ops::copy(weights(), before_); }
  void after_update() override {
    Tensor& x = weights();
    ops::scale(-1, last_, {before_, true});  // x_t - p_{t-1}
    ops::copy(x, last_);                     // p_t
    ops::scale(1, before_, {x, true});
    mix_weights();
  }

  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    all.push_back({"strategy.adapted", last_, true});
    return all;
  }

 private:
  int remembers() const override { return 1; }
  void restart() override {
    if (!last_) last_ = like_weights(), before_ = like_weights();
    ops::copy(weights(), last_);
  }

  Tensor last_, before_;  // p_{t-1}; within a step x_t
};

}  // namespace

std::unique_ptr<Strategy> make_d2() { return std::make_unique<D2>(); }

}  // namespace murmur
