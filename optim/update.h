// optim/update.h - one step of all parameters: clip, direction, decay, learning rate.
#pragma once

#include <string>
#include <vector>

#include "optim/router.h"

namespace murmur {

struct UpdateResult {
  double gradient_norm;  // over all parameters, before clipping
};

class Update {
 public:
  // Makes the state of every bank, zeroed. The parameters must outlive this.
  Update(Parameters& parameters, std::vector<Route> routes, double clip_norm);

  //   g <- g min(1, clip / (|g| + 1e-6))                   |g| over all parameters; clip 0: never
  //   W <- (1 - lr decay) W - lr direction(g)              lr = schedule factor x route's rate
  // `step` counts from 1. A gradient that is not finite is an Error that names the parameter.
  UpdateResult step(int64_t step, double schedule_factor);

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
  void step_whole(size_t bank, int64_t step, double gradient_scale, double lr, double keep);
  void step_slices(size_t bank, int64_t step, double gradient_scale, double lr, double keep);

  Parameters& parameters_;
  std::vector<Route> routes_;
  std::vector<const Route*> assigned_;  // per bank
  std::vector<State> states_;           // per bank
  double clip_norm_;
};

}  // namespace murmur
