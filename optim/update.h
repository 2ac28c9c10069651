// optim/update.h - one step of all parameters: clip, direction, decay, learning rate.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "optim/router.h"

namespace murmur {

// What of a model an update moves, where the rest is moved elsewhere. All functions are about
// things that several updates do together; where there is one only, they stay empty.
struct Share {
  std::vector<Bank> banks;  // whose weights and gradients are here
  // |g|^2 of these banks becomes that of all. (1) fp64
  std::function<void(Tensor& squares)> sum_squares;
  // The largest scores of attention seen here become those seen anywhere.
  std::function<void()> join_scores;
  // Where banks have some rows of their matrices only: the whole matrices whose directions are
  // computed here, bank by bank (shapes and members), and the ways there and back, for all banks
  // whose optimizer is not elementwise at once. An empty tensor stands for another bank.
  using Tensors = std::vector<Tensor>;
  std::vector<Bank> whole;
  std::function<void(const Tensors& rows, const Tensors& whole)> gather;
  std::function<void(const Tensors& whole, const Tensors& rows)> scatter;
};

// How long a gradient may be, over all parameters.
struct Clip {
  double norm = 0;       // 0: any
  double growth = 0;     // at step t: norm t^growth
  bool exactly = false;  // shorter ones are made that long as well
  Clip(double norm = 0, double growth = 0, bool exactly = false)
      : norm(norm), growth(growth), exactly(exactly) {}
};

class Update {
 public:
  // Makes the state of every bank, zeroed. The parameters must outlive this.
  Update(Parameters& parameters, std::vector<Route> routes, Clip clip);
  Update(Parameters& parameters, std::vector<Route> routes, Clip clip, Share share);

  //   g <- g min(1, clip / (|g| + 1e-6))                   see Clip
  //   W <- (1 - lr decay) W - lr direction(g)              lr = schedule factor x route's rate
  //   W_q, W_k shrink where scores are too large           optim/qk_clip.h, on request
  // `step` counts from 1. Two calls, because what depends on the step lies on the device: apply()
  // alone can be captured and replayed (tensor/backend.h).
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
  // itself: for saving, restoring and counting. Of a share, perhaps some rows.
  struct NamedState {
    std::string name;
    Tensor tensor;
    Shape whole;        // of the tensor with all its rows
    int64_t begin = 0;  // the first element here
  };
  std::vector<NamedState> named_state() const;
  int64_t state_bytes() const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  struct Part {  // of the parameters: a bank, who moves it, and what that one remembers
    Bank bank;   // cut into the row blocks of its route
    const Route* route;
    State state;
    Bank whole;       // where `bank` is rows of matrices: the matrices to find directions of here
    State row_state;  // and then: what begin() remembers of the rows; `state` is of the matrices
    const Optimizer& optimizer() const { return *route->use.optimizer; }
    Factor rate(const Tensor& schedule) const;
    double decay() const;
  };
  Part make_part(const Route* route, size_t bank) const;
  void measure();  // the gradient's norm; the clip factor
  Tensor clipped(const Bank& bank) const;
  Question question(const Part& part, const Bank& bank, Tensor gradient, Tensor value,
                    State& state) const;
  struct Matrix {
    Part* part;
    int64_t k;  // of its bank
  };
  using Work = std::function<void(Part& part, Bank& bank, State& state, int64_t k)>;
  void each_matrix(std::vector<Matrix> matrices, const Work& work) const;
  void step_bank(Part& part, Bank& bank, State& state);
  void step_adam(Part& part, const Adam& adam);
  void step_slices(Part& part);
  Tensor matrices(size_t part, DType type) const;
  static Tensor as_blocks(const Tensor& x, const Part& part);
  void step_rows(std::vector<size_t> parts);

  Parameters& parameters_;
  std::vector<Route> routes_;
  Share share_;
  bool everything_;  // is the share
  bool clips_now_ = false;
  std::vector<Part> parts_;
  Clip clip_;
  double clip_norm_ = 0, largest_score_ = 0;  // clip_norm_: of this step
  Tensor step_, schedule_;                    // (1) fp64 each: the step, the schedule's factor
  Tensor squares_, clip_factor_;              // (1) fp64 each
};

}  // namespace murmur
