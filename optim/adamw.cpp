// optim/adamw.cpp - Adam (Kingma & Ba, 2014) with decoupled weight decay (Loshchilov & Hutter,
// 2017).
//
//   m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
//   d = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
#include "optim/optimizer.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW() {
    learning_rate = 1e-3;
    weight_decay = 0.1;
  }

  std::vector<Option> options() override {
    return {{"beta1", &adam_.beta1, "decay of the mean of gradients", 0, 0.999999},
            {"beta2", &adam_.beta2, "decay of the mean of squared gradients", 0, 0.999999},
            {"eps", &adam_.eps, "added to the root of the mean square", 1e-30, 1}};
  }
  bool elementwise() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    Shape shape{bank.count, bank.rows, bank.cols};
    return {{"m", shape}, {"v", shape}};
  }
  void direction(const Question& q, Tensor& d) const override {
    ops::adam(q.gradient, q.state["m"], q.state["v"], d, adam_.beta1, adam_.beta2, adam_.eps,
              q.number);
  }
  const Adam* adam() const override { return &adam_; }

 private:
  Adam adam_{0.9, 0.95, 1e-8};
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw() { return std::make_unique<AdamW>(); }

}  // namespace murmur
