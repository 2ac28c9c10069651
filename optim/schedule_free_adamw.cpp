// optim/schedule_free_adamw.cpp - AdamW without a schedule (Defazio et al., arXiv 2405.15682): a
// fast sequence z, its average x, and gradients taken between them, at y = (1 - b1) z + b1 x.
//
//   v <- b2 v + (1 - b2) g^2              u = g / (sqrt(v / (1 - b2^t)) + eps) + decay y
//   w_t = (largest rate so far)^2         c = w_t / (w_1 + .. + w_t)
//   z <- z - lr u                         x <- (1 - c) x + c z
//
// The parameters that train are y; those to evaluate and publish are x. With o = z - y, which
// starts at zero, all of it is
//
//   d = (1 - b1 (1 - c)) u - (c / lr) o       (y <- y - lr d)
//   o <- (1 - c) (o - lr b1 u)                x = y + (1 - 1/b1) o
//
// Meant for --schedule constant with a warm-up.
#include "optim/numbers.h"
#include "optim/optimizer.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class ScheduleFreeAdamW final : public Optimizer {
 public:
  ScheduleFreeAdamW() { learning_rate = 2.5e-3; }

  std::vector<Option> options() override {
    return {{"beta1", &beta1_, "how far gradients are taken towards the average", 0.01, 0.999999},
            {"beta2", &beta2_, "decay of the mean of squared gradients", 0, 0.999999},
            {"eps", &eps_, "added to the root of the mean square", 1e-30, 1}};
  }
  std::vector<StateShape> state(const Bank& bank) const override {
    Shape shape{bank.count, bank.rows, bank.cols};
    return {{"o", shape}, {"v", shape}, {"weights", {bank.count}}, {"largest_rate", {bank.count}}};
  }
  bool decays_itself() const override { return true; }
  void direction(const Question& q, Tensor& d) const override {
    Tensor &o = q.state["o"], &largest = q.state["largest_rate"], &sum = q.state["weights"];
    Tensor u = like(o), g = constant(0, o);
    ops::adam(q.gradient, g, q.state["v"], u, 0, beta2_, eps_, q.number);
    if (q.decay != 0) ops::scale(q.decay, q.value, {u, true});

    // One number for every matrix of the bank; all are alike.
    const Tensor one = constant(1, sum);
    Tensor rate = like(sum), w = like(sum), c = like(sum), rest = like(sum), by = like(sum);
    ops::scale(q.rate, one, {rate});
    ops::zip(binary::maximum, largest, rate, largest);
    ops::map(unary::square, largest, w);
    ops::scale(1, w, {sum, true});
    ops::copy(sum, c);
    at_least(1e-30, c);
    ops::zip(binary::div, w, c, c);
    ops::zip(binary::sub, one, c, rest);  // 1 - c

    ops::scale(-beta1_, rest, {by});
    add(1, by);  // 1 - b1 (1 - c)
    ops::scale({1, by}, u, {d});
    ops::copy(rate, by);
    at_least(1e-30, by);
    ops::zip(binary::div, c, by, by);  // c / lr
    ops::scale({-1, by}, o, {d, true});

    ops::scale({1, rest}, o, {o});
    ops::zip(binary::mul, rest, rate, by);
    ops::scale({-beta1_, by}, u, {o, true});
  }
  bool averages() const override { return true; }
  void evaluation_value(const State& state, Tensor& value) const override {
    ops::scale(1 - 1 / beta1_, state.at("o"), {value, true});
  }

 private:
  double beta1_ = 0.9, beta2_ = 0.999, eps_ = 1e-8;
};

}  // namespace

std::unique_ptr<Optimizer> make_schedule_free_adamw() {
  return std::make_unique<ScheduleFreeAdamW>();
}

}  // namespace murmur
