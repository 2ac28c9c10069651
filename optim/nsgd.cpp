// optim/nsgd.cpp - normalised gradient descent with momentum (Cutkosky & Mehta, arXiv 2002.03305).
//
//   m <- mu m + (1 - mu) g        d = m / |m|_F        of every parameter by itself
#include "optim/optimizer.h"
#include "tensor/ops.h"

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
    Tensor& m = q.state["momentum"];
    ops::lerp(1 - momentum_, q.gradient, m);
    auto numbers = [&] { return Tensor({q.bank.count}, m.dtype(), m.device()); };
    Tensor factor = numbers(), squared = numbers();
    ops::copy(m, d);
    ops::normalizers(d, 1e-30, factor, squared);  // in range even where squares of m are not
    ops::scale({1, factor}, d, {d});
  }

 private:
  double momentum_ = 0.95;
};

}  // namespace

std::unique_ptr<Optimizer> make_nsgd() { return std::make_unique<NormalizedSgd>(); }

}  // namespace murmur
