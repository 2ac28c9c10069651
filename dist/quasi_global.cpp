// dist/quasi_global.cpp - gossip with a momentum of the way the neighbourhood went, not of a node's
// own gradients (QG-DSGDm, Lin et al., arXiv 2102.04761).
//
//   m = mu mh + g         x+ = W (x - u(m))         with nesterov: u(g + mu m)
//   mh <- (1 - f) mh + f (x - x+) / lr         f: `refresh`
//
// What the optimizer gets in the place of a gradient is m; with sgd without momentum this is the
// published method. lr: of this step and of each bank.
//
// For each eigenvalue q of a static symmetric W disagreement follows, with mu^2 for mu looking
// ahead, r^2 - (1 - f + q (1 + f mu)) r + q (1 - f + f mu) = 0. It shrinks where
// q > -(2 - f) / (2 - f + 2 f mu).
#include "dist/decentralised.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class QuasiGlobal final : public Decentralised {
 public:
  std::vector<Option> options() override {
    std::vector<Option> all = Decentralised::options();
    all.push_back({"momentum", &momentum_, "mu", 0, 0.9999});
    all.push_back({"refresh", &refresh_, "f: share of the newest way in the momentum", 0, 1});
    all.push_back({"nesterov", &nesterov_, "look ahead by one step"});
    return all;
  }

  double eigenvalues_above() const override {
    double kept = 2 - refresh_, back = 2 * refresh_ * weight_of_way();
    return -kept / (kept + back);
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    for (const Route* route : assign_routes(routes, parameters.banks()))
      rates_.push_back(route->use.optimizer->learning_rate * route->lr_scale);
    return Decentralised::start(parameters, routes);
  }

  void before_update() override {
    Tensor& g = parameters().gradients();
    ops::copy(weights(), before_);
    // m = mu mh + g; looking ahead g + mu m = (1 + mu) g + mu^2 mh
    if (nesterov_) ops::scale(1 + momentum_, g, {g});
    ops::scale(weight_of_way(), way_, {g, true});
  }
  void after_update() override {
    mix_weights();
    Tensor& x = weights();
    ops::scale(-1, x, {before_, true});
    for (size_t i = 0; i < rates_.size(); i++) {
      double rate = rates_[i] * factor();
      if (rate == 0) continue;
      const Bank& bank = parameters().banks()[i];
      int64_t begin = bank.members[0]->offset, end = begin + bank.value.numel();
      Tensor way = way_.slice(begin, end);
      ops::scale(1 - refresh_, way, {way});
      ops::scale(refresh_ / rate, before_.slice(begin, end), {way, true});
    }
  }

  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    all.push_back({"strategy.way", way_, true});
    return all;
  }

 private:
  int remembers() const override { return 1; }
  void restart() override {
    if (!way_) way_ = like_weights(), before_ = like_weights();
    ops::fill(way_, 0);
  }
  void repair() override {}
  double weight_of_way() const { return nesterov_ ? momentum_ * momentum_ : momentum_; }

  double momentum_ = 0.9, refresh_ = 0.1;
  bool nesterov_ = false;
  std::vector<double> rates_;  // of each bank, without the schedule
  Tensor way_, before_;        // mh; within a step x
};

}  // namespace

std::unique_ptr<Strategy> make_quasi_global() { return std::make_unique<QuasiGlobal>(); }

}  // namespace murmur
