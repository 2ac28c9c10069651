// optim/update.h - one step of all parameters: clip, direction, decay, learning rate.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "optim/router.h"

namespace murmur {

class Update {
 public:
  // Makes the state of every bank, zeroed. The parameters must outlive this.
  Update(Parameters& parameters, std::vector<Route> routes, double clip_norm);

  //   g <- g min(1, clip / (|g| + 1e-6))                   |g| over all parameters; clip 0: never
  //   W <- (1 - lr decay) W - lr direction(g)              lr = schedule factor x route's rate
  //   W_q, W_k shrink where scores are too large           optim/qk_clip.h, on request
  // `step` counts from 1. Two calls, because what depends on the step lies on the device: apply()
  // alone can be captured and replayed (tensor/engine.h).
  void set_step(int64_t step, double schedule_factor);
  void apply();
  void step(int64_t step, double schedule_factor) { set_step(step, schedule_factor), apply(); }
  // |g|^2 of the last apply(), before clipping: (1) fp64, beside the parameters. On the CPU a
  // gradient that is not finite is an Error of apply(), before anything moves; elsewhere whoever
  // reads this number later calls require_finite.
  const Tensor& gradient_squares() const { return squares_; }
  // An Error that names the parameter whose gradient is not finite, unless `squares` is.
  void require_finite(double squares) const;

  // Calls work() while the parameters are the weights to evaluate, sample from and publish; those
  // of most optimizers are what they train anyway.
  void with_evaluation_values(const std::function<void()>& work);
  bool averages() const;  // are they others for some optimizer?

  // The state as one named tensor per parameter, "h.0.attn.c_attn.weight.m", views of the state
  // itself: for saving, restoring and counting.
  struct NamedState {
    std::string name;
    Tensor tensor;
  };
  std::vector<NamedState> named_state() const;
  int64_t state_bytes() const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  struct Part {  // of the parameters: a bank, who moves it, and what that one remembers
    Bank bank;   // cut into the row blocks of its route
    const Route* route;
    State state;
    const Optimizer& optimizer() const { return *route->use.optimizer; }
    Factor rate(const Tensor& schedule) const;
    double decay() const;
  };
  void start(State& state, const Part& part) const;
  struct Matrix {
    Part* part;
    int64_t k;  // of its bank
  };
  void step_bank(const Part& part, Bank& bank, State& state, bool clipped);
  void step_matrices(std::vector<Matrix> matrices, bool clipped);
  void step_slices(Part& part, bool clipped);

  Parameters& parameters_;
  std::vector<Route> routes_;
  std::vector<Part> parts_;
  double clip_norm_, largest_score_ = 0;
  Tensor step_, schedule_;        // (1) fp64 each: the step, the schedule's factor
  Tensor squares_, clip_factor_;  // (1) fp64 each
};

}  // namespace murmur
