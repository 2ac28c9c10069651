// optim/lion.cpp - the sign of a momentum (Chen et al., arXiv 2302.06675).
//
//   d = sign(b1 m + (1 - b1) g)        m <- b2 m + (1 - b2) g
#include "optim/optimizer.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Lion final : public Optimizer {
 public:
  Lion() { learning_rate = 1e-4; }

  std::vector<Option> options() override {
    return {{"beta1", &beta1_, "decay within the step", 0, 0.999999},
            {"beta2", &beta2_, "decay of what is remembered", 0, 0.999999}};
  }
  bool elementwise() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"m", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Question& q, Tensor& d) const override {
    Tensor& m = q.state["m"];
    ops::scale(beta1_, m, {d});
    ops::scale(1 - beta1_, q.gradient, {d, true});
    ops::map(unary::sign, d, d);
    ops::lerp(1 - beta2_, q.gradient, m);
  }

 private:
  double beta1_ = 0.9, beta2_ = 0.99;
};

}  // namespace

std::unique_ptr<Optimizer> make_lion() { return std::make_unique<Lion>(); }

}  // namespace murmur
