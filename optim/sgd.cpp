// optim/sgd.cpp - stochastic gradient descent with momentum.
//
//   m <- mu m + g        d = m, or g + mu m with nesterov        (mu = 0: d = g)
#include "optim/optimizer.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd() { learning_rate = 0.1; }

  std::vector<Option> options() override {
    return {{"momentum", &momentum_, "mu", 0, 1},
            {"nesterov", &nesterov_, "look ahead by one step"}};
  }
  bool elementwise() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Question& q, Tensor& d) const override {
    ops::momentum(q.gradient, q.state["momentum"], d, momentum_, 1, nesterov_ ? momentum_ : 1,
                  nesterov_ ? 1 : 0);
  }

 private:
  double momentum_ = 0.9;
  bool nesterov_ = false;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd() { return std::make_unique<Sgd>(); }

}  // namespace murmur
