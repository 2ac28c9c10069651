// dist/strategy.cpp - strategies.def, expanded.
#include "dist/strategy.h"

#include "dist/collectives.h"
#include "optim/update.h"
#include "tensor/nearest.h"
#include "tensor/ops.h"

namespace murmur {

#define STRATEGY(name, summary) std::unique_ptr<Strategy> make_##name();
#include "dist/strategies.def"
#undef STRATEGY

const std::vector<StrategyEntry>& strategy_list() {
  static const std::vector<StrategyEntry> list = {
#define STRATEGY(name, summary) {#name, summary, make_##name},
#include "dist/strategies.def"
#undef STRATEGY
  };
  return list;
}

std::unique_ptr<Strategy> make_strategy(const std::string& name) {
  return find_named("strategy", strategy_list(), name).make();
}

void configure(Strategy& strategy, const std::string& name,
               const std::map<std::string, std::string>& settings) {
  std::vector<Option> options = strategy.options();
  for (const auto& [key, value] : settings) {
    if (options.empty())
      throw InputError("strategy." + key + ": strategy " + name + " has no settings");
    set_option(options, "strategy.", key, value);
  }
}

std::vector<Option> Strategy::options() { return {}; }

Share Strategy::start(Parameters& parameters, const std::vector<Route>&) {
  parameters_ = &parameters;
  return {};
}

std::string Strategy::members_changed(bool) {
  throw Error("this strategy cannot go on without a rank; use gossip or gradient_tracking");
}

void Strategy::leave_out(const std::set<int>& ranks) {
  if (!ranks.empty())
    throw InputError("faults: this strategy has no edges to leave out; use gossip");
}

// In a tensor of its own: where a rank is lost meanwhile, what still arrives changes no weights.
Tensor Strategy::common(const Tensor& x) const {
  Tensor sum(x.shape(), x.dtype(), x.device()), masses = Tensor::of({mass()}, {1}, DType::f64);
  ops::scale(mass(), x, {sum});
  all_reduce(c(), "mean weights", {sum});
  all_reduce(c(), "mean weights", {masses});
  ops::scale(1 / item(masses), sum, {sum});
  return sum;
}

void Strategy::with_common_weights(const std::function<void()>& work) {
  if (!own_weights() || c().size() == 1) return work();
  Tensor& x = parameters().values();
  Tensor own(x.shape(), x.dtype(), x.device());
  ops::copy(x, own);
  ops::copy(common(x), x);
  parameters().refresh_shadow();
  auto put_back = [&] {
    ops::copy(own, x);
    parameters().refresh_shadow();
  };
  try {
    work();
  } catch (...) {
    put_back();
    throw;
  }
  put_back();
}

std::function<void(Tensor&)> Strategy::sum_squares() const {
  return [this](Tensor& squares) { all_reduce(c(), "norm", {squares}); };
}

std::function<void()> Strategy::join_scores() const {
  return [this] {
    for (const Parameter& p : parameters().all()) {
      Tensor largest = p.largest_scores;  // a weight shares them with its bias
      if (largest && p.role == Role::matrix) all_reduce_max(c(), "scores", largest);
    }
  };
}

}  // namespace murmur
