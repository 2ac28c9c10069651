// optim/update.h - one step of all parameters: clip, direction, decay, learning rate.
#pragma once

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
  struct Rate {
    Factor lr;
    double decay;
  };
  Rate rate_of(const Route& route) const;
  void step_whole(size_t bank, bool clipped);
  void step_slices(size_t bank, bool clipped);

  Parameters& parameters_;
  std::vector<Route> routes_;
  std::vector<const Route*> assigned_;  // per bank
  std::vector<State> states_;           // per bank
  double clip_norm_;
  Tensor step_, schedule_;        // (1) fp64 each: the step, the schedule's factor
  Tensor squares_, clip_factor_;  // (1) fp64 each
};

}  // namespace murmur
