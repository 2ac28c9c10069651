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
  std::string name;  // "momentum"
  Shape shape;       // (K, ...)
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
  // Zero-initialised tensors it wants to keep per bank.
  virtual std::vector<StateShape> state(const Bank& bank) const = 0;
  // Writes the direction d of W <- (1 - lr decay) W - lr d. All three have the bank's shape, or,
  // for an elementwise optimizer, the shape of a slice. step: (1) fp64 beside them, counts from 1;
  // it is a tensor so that a captured step can be replayed (tensor/engine.h).
  virtual void direction(const Bank& bank, const Tensor& gradient, State& state, const Tensor& step,
                         Tensor& direction) const = 0;

  double learning_rate = 1e-3;  // the default; a subclass sets its own
  double weight_decay = 0;
};

// learning_rate ("lr"), weight_decay and then the optimizer's own.
std::vector<Option> all_options(Optimizer& optimizer);

}  // namespace murmur
