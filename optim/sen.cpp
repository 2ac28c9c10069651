// optim/sen.cpp - SClip-EF: of each gradient only what the momentum does not know yet, clipped
// smoothly and less and less (Yu, Jakovetic & Kar, arXiv 2310.16920). For noise with heavy tails.
//
//   psi(u) = phi u / sqrt(u^2 (t + 1) + tau (t + 1)^1.6)              entry by entry, t: the step
//   m <- b m + (1 - b) psi(g - m)        b = momentum / sqrt(t)
//   d = m / t^0.2
#include <cmath>

#include "optim/optimizer.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Sen final : public Optimizer {
 public:
  Sen() { learning_rate = 0.1; }

  std::vector<Option> options() override {
    return {{"momentum", &momentum_, "b of the first step", 0, 1},
            {"phi", &phi_, "length of psi", 0, 1e6},
            {"tau", &tau_, "smoothness of psi", 1e-12, 1e12}};
  }
  bool elementwise() const override { return true; }
  bool replayable() const override { return false; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"m", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Question& q, Tensor& d) const override {
    double t = item(q.number), b = momentum_ / std::sqrt(t);
    Tensor& m = q.state["m"];
    Tensor news(d.shape(), d.dtype(), d.device()), length(news.shape(), news.dtype(), d.device());
    ops::zip(binary::sub, q.gradient, m, news);
    ops::fill(length, tau_ * std::pow(t + 1, 1.6));
    ops::zip(binary::mul, news, news, d);
    ops::scale(t + 1, d, {length, true});
    ops::map(unary::sqrt, length, length);
    ops::zip(binary::div, news, length, news);
    ops::lerp(1 - b, news, m);
    if (phi_ != 1) ops::scale((1 - b) * (phi_ - 1), news, {m, true});
    ops::scale(std::pow(t, -0.2), m, {d});
  }

 private:
  double momentum_ = 0.8, phi_ = 1, tau_ = 1;
};

}  // namespace

std::unique_ptr<Optimizer> make_sen() { return std::make_unique<Sen>(); }

}  // namespace murmur
