// optim/adamuon.cpp - AdaMuon: the sign of the momentum, orthogonalised, then every element by its
// own second moment (Si et al., arXiv 2507.11005).
//
//   m <- mu m + (1 - mu) g            u = (1 - mu) g + mu m  (m without nesterov)
//   o = orthogonalize(sign(u))        sign off: orthogonalize(u)
//   v <- mu v + (1 - mu) o^2          no bias correction: it cancels
//   w = o / (sqrt(v) + eps)
//   d = 0.2 sqrt(m n) w / (|w|_F + eps)
#include <cmath>

#include "optim/numbers.h"
#include "optim/optimizer.h"
#include "optim/orthogonalize.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class AdaMuon final : public Optimizer {
 public:
  AdaMuon() {
    learning_rate = 4e-3;
    weight_decay = 0.1;
  }

  std::vector<Option> options() override {
    std::vector<Option> all = {{"momentum", &momentum_, "mu, of gradients and of squares", 0, 1},
                               {"nesterov", &nesterov_, "look ahead by one step"},
                               {"sign", &sign_, "orthogonalise the sign of the momentum"},
                               {"eps", &eps_, "added to the root of the mean square", 1e-30, 1}};
    for (Option& option : orthogonalization_.options()) all.push_back(std::move(option));
    return all;
  }
  bool matrices_only() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    Shape shape{bank.count, bank.rows, bank.cols};
    return {{"momentum", shape, 0, true}, {"v", shape}};
  }
  DType begun_type(const Tensor& g) const override { return orthogonalization_.type(g); }
  Tensor begin(const Question& q) const override {
    Tensor& m = q.state["momentum"];
    Tensor u(m.shape(), orthogonalization_.type(m), m.device());
    ops::momentum(q.gradient, m, u, momentum_, 1 - momentum_, nesterov_ ? momentum_ : 1,
                  nesterov_ ? 1 - momentum_ : 0);
    if (sign_) ops::map(unary::sign, u, u);
    return u;
  }
  void direction(const Question& q, Tensor& d) const override {
    Tensor &v = q.state["v"], u = q.gradient;
    orthogonalize(u, orthogonalization_, 1, d);

    Tensor w = like(v);
    ops::map(unary::square, d, w);
    ops::lerp(1 - momentum_, w, v);
    ops::map(unary::sqrt, v, w);
    add(eps_, w);
    ops::zip(binary::div, d, w, d);
    Tensor norm = norms(q.bank.count, d);
    add(eps_, norm);
    divide_parts(0.2 * std::sqrt(double(q.bank.rows * q.bank.cols)), norm, d);
  }

 private:
  double momentum_ = 0.95, eps_ = 1e-8;
  bool nesterov_ = true, sign_ = true;
  Orthogonalization orthogonalization_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamuon() { return std::make_unique<AdaMuon>(); }

}  // namespace murmur
