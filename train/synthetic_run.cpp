// train/synthetic_run.cpp - the step of dist/replica.cpp, with a gradient in closed form plus
// noise.
#include "train/synthetic_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/collectives.h"
#include "dist/transport.h"
#include "tensor/ops.h"
#include "train/trainer.h"  // Diverged

namespace murmur {
namespace {

constexpr double kStart = 0.1;     // deviation of X at first, the same on all nodes
constexpr int64_t kFineness = 64;  // measurements lie 1 + step / 64 steps apart

Landscape landscape_of(const Config& config, const SyntheticProblem& problem) {
  Landscape l = problem.landscape;
  l.nodes = std::max<int64_t>(1, config.nodes);
  l.seed = config.seed;
  return l;
}

// One rank: X, its update, and the strategy that ties it to those of the others.
class Node {
 public:
  Node(const Config& config, const Landscape& l, const Objective& objective, const Noise& noise,
       Communicator& c)
      : config_(config),
        objective_(objective),
        noise_(noise),
        c_(c),
        schedule_(make_schedule(config)),
        strategy_(configured_strategy(config)) {
    strategy_->join(c);
    if (strategy_->kept()) {
      throw InputError(
          fmt::format("strategy: {} keeps a share of X on every rank; use one that keeps all",
                      config.strategy));
    }
    Parameter& x = parameters_.add("x", {l.rows, l.cols}, Role::matrix, kStart);
    parameters_.allocate(uint64_t(config.seed), DType::f64);
    x_ = parameters_.value(x);
    gradient_ = parameters_.gradient(x);
    std::vector<Route> routes = make_routes(config);
    update_.emplace(parameters_, routes, clip_of(config), strategy_->start(parameters_, routes));
    strategy_->attach(*update_);
  }

  void step(int64_t step) {
    c_.at_step(step);
    double factor = schedule_.factor(step);
    strategy_->begin_step(step, factor);
    update_->set_step(step, factor);
    strategy_->begin_pass(true, true);
    objective_.gradient(c_.rank(), x_, gradient_);
    noise_.add(config_.seed, c_.rank(), step, gradient_);
    // Where ranks share weights, they add gradients up.
    if (!strategy_->own_weights()) ops::scale(1 / double(c_.size()), gradient_, {gradient_});
    require_finite(gradient_, step);
    strategy_->before_update();
    require_finite(parameters_.gradients(), step);
    update_->apply();
    strategy_->after_update();
  }

  // Calls see(x, consensus error) with the mean over nodes.
  template <class See>
  void measure(const See& see) {
    Tensor own(x_.shape(), x_.dtype()), squares({1}, DType::f64);
    ops::copy(x_, own);
    strategy_->with_common_weights([&] {
      ops::scale(-1, x_, {own, true});
      ops::sum_of_squares(own, squares);
      all_reduce(c_, "consensus error", {squares});
      see(x_, std::sqrt(item(squares)));
    });
  }

 private:
  static void require_finite(const Tensor& x, int64_t step) {
    Tensor squares({1}, DType::f64);
    ops::sum_of_squares(x, squares);
    if (!std::isfinite(item(squares))) throw Diverged(fmt::format("step {}", step));
  }

  const Config& config_;
  const Objective& objective_;
  const Noise& noise_;
  Communicator& c_;
  Schedule schedule_;
  std::unique_ptr<Strategy> strategy_;
  Parameters parameters_;
  Tensor x_, gradient_;
  std::optional<Update> update_;
};

void note(const Objective& objective, const Tensor& x, double consensus, int64_t step,
          Trace& trace) {
  trace.steps.push_back(double(step));
  trace.stationarity.push_back(nuclear_norm(objective.mean_gradient(x)));
  trace.consensus.push_back(consensus);
  if (auto least = objective.least()) trace.excess.push_back(objective.mean_value(x) - *least);
}

void take_means(double steps, Trace& trace) {
  double sum = 0, late = 0, late_steps = 0;
  for (size_t i = 0; i < trace.steps.size(); i++) {
    double end = i + 1 < trace.steps.size() ? trace.steps[i + 1] : steps;
    sum += trace.stationarity[i] * (end - trace.steps[i]);
    trace.running_mean.push_back(sum / end);
    if (trace.steps[i] < 0.75 * steps && end < steps) continue;
    late += trace.stationarity[i] * (end - trace.steps[i]);
    late_steps += end - trace.steps[i];
  }
  if (!trace.diverged.empty()) return;
  trace.mean = sum / steps;
  trace.late = late / late_steps;
  if (!std::isfinite(trace.mean))
    trace.diverged = "stationarity", trace.mean = trace.late = INFINITY;
}

}  // namespace

Trace run_synthetic(const Config& config, const SyntheticProblem& problem) {
  if (config.transport != "threads" && config.transport != "self")
    throw InputError("transport: nodes of a synthetic run are threads of one process; use threads");
  Landscape landscape = landscape_of(config, problem);
  std::unique_ptr<Objective> objective = make_objective(problem.objective, landscape);
  Noise noise(problem.noise, problem.noise_scale);
  Trace trace;
  try {
    run_ranks(config.transport, {landscape.nodes, config.deadline, Device::cpu},
              [&](Communicator& c) {
                Node node(config, landscape, *objective, noise, c);
                int64_t next = 0;
                for (int64_t taken = 0; taken < config.steps; taken++) {
                  if (taken == next) {
                    next += 1 + taken / kFineness;
                    node.measure([&](const Tensor& x, double consensus) {
                      if (c.rank() == 0) note(*objective, x, consensus, taken, trace);
                    });
                  }
                  node.step(taken + 1);
                }
              });
  } catch (const Diverged& error) {
    trace.diverged = error.what();
  }
  take_means(double(config.steps), trace);
  return trace;
}

}  // namespace murmur
