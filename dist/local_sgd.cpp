// dist/local_sgd.cpp - steps on each rank's own, then one outer step (local SGD; DiLoCo, Douillard
// et al., arXiv 2311.08105).
//
//   every step     the optimizer on this rank's own sequences, nothing sent
//   every H steps  D = mean over ranks of (x_outer - x)            the ways gone          2 f b / H
//                  u <- momentum u + D
//                  x_outer <- x_outer - lr (D + momentum u)        (without nesterov: lr u)
//                  x <- x_outer
//
// outer_lr 1 and outer_momentum 0 is plain local SGD: weights are averaged every H steps. The
// optimizer's own state stays with its rank.
#include <algorithm>

#include "dist/collectives.h"
#include "dist/ownership.h"
#include "dist/strategy.h"
#include "optim/numbers.h"
#include "optim/update.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

const std::string kWays = "ways gone";

class LocalSgd final : public Strategy {
 public:
  std::vector<Option> options() override {
    return {{"inner_steps", &inner_steps_, "H: steps between two outer steps", 1, 1e9},
            {"outer_lr", &outer_lr_, "of the outer step", 0, 10},
            {"outer_momentum", &outer_momentum_, "of the outer step", 0, 0.9999},
            {"nesterov", &nesterov_, "the outer step looks ahead"}};
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Strategy::start(parameters, routes);
    outer_ = like(parameters.values());
    momentum_ = like(outer_);
    weights_replaced();
    return {};
  }
  void weights_replaced() override {
    ops::copy(parameters().values(), outer_);
    ops::fill(momentum_, 0);
  }

  void begin_step(int64_t step, double) override { step_ = step; }

  void after_update() override {
    if (step_ % inner_steps_ != 0) return;
    Tensor& x = parameters().values();
    Tensor way = like(x);
    ops::scale(1.0 / double(c().size()), outer_, {way});
    ops::scale(-1.0 / double(c().size()), x, {way, true});
    Tensors of_banks;  // without the gaps between them
    for (const Bank& bank : parameters().banks()) {
      int64_t begin = bank.members[0]->offset;
      of_banks.push_back(way.slice(begin, begin + bank.value.numel()));
    }
    all_reduce(c(), kWays, of_banks);
    ops::scale(outer_momentum_, momentum_, {momentum_});
    ops::scale(1, way, {momentum_, true});
    ops::scale(-outer_lr_ * (nesterov_ ? outer_momentum_ : 1), momentum_, {outer_, true});
    if (nesterov_) ops::scale(-outer_lr_, way, {outer_, true});
    ops::copy(outer_, x);
    parameters().refresh_shadow();
  }

  bool own_weights() const override { return true; }
  std::vector<State> state() override {
    return {{"outer.weights", outer_}, {"outer.momentum", momentum_}};
  }

  std::vector<std::string> kinds() const override { return {kWays}; }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes, DType,
            int ranks) const override {
    Plan plan;
    double h = double(inner_steps_), n = double(ranks);
    for (size_t i = 0; i < banks.size(); i++) {
      double elements = double(banks[i].count * banks[i].rows * banks[i].cols);
      plan.bytes += 2 * 4 * (n - 1) * elements / h;
      plan.messages += 2 * (n - 1) * std::min(elements, n) / h;
      plan.state_bytes += 4 * state_elements(banks[i], *routes[i]);
    }
    plan.state_bytes += 4 * 2 * double(flat_size(banks));
    plan.rounds = 2.0 * rounds(Algorithm::direct, ranks) / h;
    plan.flops = orthogonalization_flops(owners(banks, routes, 1), banks, routes)[0];
    return plan;
  }
  int64_t period(int) const override { return inner_steps_; }
  double published_sends(int ranks) const override {
    return 2.0 * (ranks - 1) / ranks / double(inner_steps_);
  }

 private:
  int64_t inner_steps_ = 20, step_ = 0;
  double outer_lr_ = 0.7, outer_momentum_ = 0.9;
  bool nesterov_ = true;
  Tensor outer_, momentum_;  // like the flat buffer, the same on all ranks
};

}  // namespace

std::unique_ptr<Strategy> make_local_sgd() { return std::make_unique<LocalSgd>(); }

}  // namespace murmur
