// optim/optimizer.h - an optimizer answers one question: which direction?
//
// It sees one bank at a time: the gradient, const, and its own state, which is named tensors.
// Clipping, learning rate, decay and the step itself happen in update.cpp, in the same way for all.
// An optimizer is one file in this folder and one line in optimizers.def.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/parameter.h"  // Bank
#include "optim/option.h"

namespace murmur {

// State of one bank by name. Every tensor starts with the bank's count: (K, ...).
using State = std::map<std::string, Tensor>;

struct StateShape {
  std::string name;        // "momentum"
  Shape shape;             // (K, ...)
  double deviation = 0;    // of the normal distribution it starts from; 0: it starts as zeros
  bool entrywise = false;  // begin() works with it, entry by entry; nobody else does
};

// Which direction? About one bank or, for an elementwise optimizer, about a slice of it: gradient,
// value and state then are that slice's.
struct Question {
  const Bank& bank;  // K matrices of m x n; of the whole bank even where a slice is asked about
  const Tensor gradient;  // (K, m, n), clipped; fp32, or fp64 in tests; of direction(): what
                          // begin() has made of it, to be used up
  const Tensor value;     // W before the step
  State& state;
  const Tensor number;  // of the step, from 1: (1) fp64, a tensor so that a captured step can be
                        // replayed (tensor/backend.h)
  // Most optimizers have no use for these:
  const Factor rate;   // the learning rate of this step
  const double decay;  // the weight decay of this bank
};

struct Adam {
  double beta1, beta2, eps;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // Settings besides the learning rate and decay.
  virtual std::vector<Option> options() { return {}; }
  // True when entry i of the direction depends on entries i of gradient and state only. Such an
  // optimizer may be asked about any slice of a bank, which then stays in the cache.
  virtual bool elementwise() const { return false; }
  // True when it only knows what to do with matrices; the other roles then go to the auxiliary one.
  virtual bool matrices_only() const { return false; }
  // Tensors it wants to keep per bank, in the type of the parameters.
  virtual std::vector<StateShape> state(const Bank& bank) const = 0;
  // The part of the formula that goes entry by entry and comes first: momentum. It may be asked
  // about some rows of the matrices only, with the state of these rows.
  virtual Tensor begin(const Question& q) const { return q.gradient; }
  virtual DType begun_type(const Tensor& gradient) const { return gradient.dtype(); }
  // Writes the direction d, (K, m, n), of W <- (1 - lr decay) W - lr d.
  virtual void direction(const Question& q, Tensor& d) const = 0;
  // Where the direction is that of ops::adam, of clipped gradients and of states "m" and "v": its
  // numbers. Direction and step then are one pass over memory.
  virtual const Adam* adam() const { return nullptr; }

  // True when q.decay is in its direction already: then nobody else decays.
  virtual bool decays_itself() const { return false; }
  // Where the weights to evaluate, sample from and publish are not the ones that train: true, and
  // evaluation_value() turns W, given in `value`, into them.
  virtual bool averages() const { return false; }
  virtual void evaluation_value(const State&, Tensor& /*value*/) const {}
  // False when it looks at a number on the host, so that a captured step would not see it change.
  virtual bool replayable() const { return true; }
  // Queries and keys shrink where an attention score exceeds this (optim/qk_clip.h); 0: never.
  virtual double largest_score() const { return 0; }

  double learning_rate = 1e-3;  // the default; a subclass sets its own
  double weight_decay = 0;
  bool cautious_decay = false;  // decay only where the step does not shrink the weight already
};

// learning_rate ("lr"), weight_decay, cautious_decay and then the optimizer's own.
std::vector<Option> all_options(Optimizer& optimizer);
// Sets what is given; settings that choose a form (Option::chosen) come first, so that the others
// may depart from it. InputError names owner and setting.
void configure(Optimizer& optimizer, const std::string& owner,
               const std::map<std::string, std::string>& settings);

}  // namespace murmur
