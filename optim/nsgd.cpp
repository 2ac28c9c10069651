// optim/nsgd.cpp - normalised gradient descent with momentum (Cutkosky & Mehta, arXiv 2002.03305).
//
//   m <- mu m + (1 - mu) g        d = m / |m|_F        of every parameter by itself
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
    Tensor norm({q.bank.count}, m.dtype(), m.device()), tiny(norm.shape(), m.dtype(), m.device());
    e.sum_of_squares(m, norm);
    e.map(Unary::sqrt, norm, norm);
    e.fill(tiny, 1e-30);  // of a parameter of zeros
    e.zip(Binary::maximum, norm, tiny, norm);
    e.map(Unary::reciprocal, norm, norm);
    e.scale({1, norm}, m, {d});
  }

 private:
  double momentum_ = 0.95;
};

}  // namespace

std::unique_ptr<Optimizer> make_nsgd() { return std::make_unique<NormalizedSgd>(); }

}  // namespace murmur
