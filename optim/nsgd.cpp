// optim/nsgd.cpp - normalised gradient descent with momentum (Cutkosky & Mehta, arXiv 2002.03305).
//
//   m <- mu m + (1 - mu) g        d = m / |m|_F        of every parameter by itself
#include "optim/numbers.h"
#include "optim/optimizer.h"

namespace murmur {
namespace {

class NormalizedSgd final : public Optimizer {
 public:
  NormalizedSgd() { learning_rate = 0.1; }

  std::vector<Option> options() override { return {{"momentum", &momentum_, "mu", 0, 1}}; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Question& q, Tensor& d) const override {
    const Engine& e = engine(q.gradient.device());
    Tensor& m = q.state["momentum"];
    e.lerp(1 - momentum_, q.gradient, m);
    Tensor norm = norms(q.bank.count, m);
    at_least(1e-30, norm);  // a parameter of zeros stays one
    e.scale(1, m, {d});
    divide_parts(1, norm, d);
  }

 private:
  double momentum_ = 0.95;
};

}  // namespace

std::unique_ptr<Optimizer> make_nsgd() { return std::make_unique<NormalizedSgd>(); }

}  // namespace murmur
