// optim/normuon.cpp - NorMuon: Muon, then every neuron by its own second moment (Li et al.,
// arXiv 2510.05491). A neuron is a row.
//
//   m <- b1 m + (1 - b1) g            u = m  (nesterov: (1 - b1) g + b1 m)
//   o = orthogonalize(u)
//   s_i = mean of o_ij^2 over j       v <- b2 v + (1 - b2) s        no bias correction: it cancels
//   w_ij = o_ij / (sqrt(v_i) + eps)
//   rms:   d = 0.2 sqrt(m n) w / |w|_F                              root mean square exactly 0.2
//   norm:  d = scale(shape) |o|_F w / |w|_F                         as long as before
//
// Forms:
//
//   paper  Algorithm 1: no look-ahead, rows, rms
//   code   the authors' program (github.com/zichongli5/NorMuon): look-ahead, rows, norm
//   shape  as in speedruns: also by columns, where a matrix is wider than tall; v under the root
//          is held above 1e-10; Polar Express
//
// No pass over o but two: |o|^2 = n sum s, and |w|^2 = n sum s / (sqrt(v) + eps)^2.
#include <cmath>

#include "optim/numbers.h"
#include "optim/optimizer.h"
#include "optim/orthogonalize.h"
#include "optim/scale.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class NorMuon final : public Optimizer {
 public:
  NorMuon() { use_form(); }

  std::vector<Option> options() override {
    std::vector<Option> all = {
        {"form",
         &form_,
         "sets the others to what a publication uses",
         0,
         0,
         {"paper", "code", "shape"},
         [this] { use_form(); }},
        {"momentum", &momentum_, "b1", 0, 1},
        {"beta2", &beta2_, "decay of a neuron's mean square", 0, 0.999999},
        {"eps", &eps_, "added to the root of the mean square", 1e-30, 1},
        {"nesterov", &nesterov_, "look ahead by one step"},
        {"neurons", &neurons_, "what shares a second moment", 0, 0, {"rows", "longer_side"}},
        {"rescale", &rescale_, "rms: to 0.2; norm: to the length before", 0, 0, {"rms", "norm"}},
        {"scale", &scale_, "step length by shape, of rescale norm", 0, 0, shape_scale_names()}};
    for (Option& option : orthogonalization_.options()) all.push_back(std::move(option));
    return all;
  }
  bool matrices_only() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}, 0, true},
            {"v", {bank.count, by_columns(bank) ? bank.cols : bank.rows}}};
  }

  DType begun_type(const Tensor& g) const override { return orthogonalization_.type(g); }
  Tensor begin(const Question& q) const override {
    Tensor& m = q.state["momentum"];
    Tensor u(m.shape(), orthogonalization_.type(m), m.device());
    ops::momentum(q.gradient, m, u, momentum_, 1 - momentum_, nesterov_ ? momentum_ : 1,
                  nesterov_ ? 1 - momentum_ : 0);
    return u;
  }
  void direction(const Question& q, Tensor& d) const override {
    Tensor &v = q.state["v"], u = q.gradient;
    orthogonalize(u, orthogonalization_, 1, d);
    bool columns = by_columns(q.bank);
    double shared = double(columns ? q.bank.rows : q.bank.cols);  // elements of a neuron
    Tensor s = like(v), inverse = like(v);
    columns ? mean_square_of_columns(d, s) : mean_square_of_rows(d, s);
    ops::lerp(1 - beta2_, s, v);

    ops::copy(v, inverse);
    at_least(floor_, inverse);
    ops::map(unary::sqrt, inverse, inverse);
    add(eps_, inverse);
    ops::map(unary::reciprocal, inverse, inverse);

    // after = |w|^2, before = |o|^2 or 0.04 m n; a matrix of zeros stays one.
    Tensor w = like(v), after({q.bank.count}, v.dtype(), v.device()), before = like(after);
    ops::zip(binary::mul, s, inverse, w);
    ops::zip(binary::mul, w, inverse, w);
    ops::sum(shared, w, after);
    if (rescale_ == "norm") {
      double scale = shape_scale(scale_, q.bank.rows, q.bank.cols);
      ops::sum(shared * scale * scale, s, before);
    } else {
      ops::fill(before, 0.04 * double(q.bank.rows * q.bank.cols));
    }
    at_least(1e-10, after);  // what is left of a dead gradient fades, and squares stay in range
    ops::zip(binary::div, before, after, after);
    ops::map(unary::sqrt, after, after);
    ops::scale({1, after}, inverse, {inverse});
    columns ? scale_columns(inverse, d) : scale_rows(inverse, d);
  }

 private:
  void use_form() {
    bool paper = form_ == "paper", shape = form_ == "shape";
    learning_rate = paper ? 4e-3 : 0.02;
    weight_decay = paper ? 0.1 : 0;
    nesterov_ = !paper;
    rescale_ = paper ? "rms" : "norm";
    neurons_ = shape ? "longer_side" : "rows";
    beta2_ = shape ? 0.9 : 0.95;
    eps_ = paper ? 1e-8 : shape ? 1e-30 : 1e-10;
    floor_ = shape ? 1e-10 : 0;
    orthogonalization_.method = shape ? "polar_express" : "jordan5";
  }

  bool by_columns(const Bank& bank) const {
    return neurons_ == "longer_side" && bank.rows < bank.cols;
  }
  static Tensor matrix(const Tensor& bank, int64_t k) {
    return bank.slice(k, k + 1).view({bank.shape()[1], bank.shape()[2]});
  }

  // o (K, m, n) -> s (K, m), and o <- diag(f) o
  static void mean_square_of_rows(const Tensor& o, Tensor& s) {
    Tensor flat = s.view({s.numel()});
    ops::sum_of_squares(o.view({s.numel(), o.cols()}), flat);
    ops::scale(1 / double(o.cols()), flat, {flat});
  }
  static void scale_rows(const Tensor& f, Tensor& o) {
    Tensor rows = o.view({f.numel(), o.cols()});
    ops::scale({1, f.view({f.numel()})}, rows, {rows});
  }
  // The same of columns, (K, n), matrix by matrix.
  static void mean_square_of_columns(const Tensor& o, Tensor& s) {
    Tensor squares(o.shape(), o.dtype(), o.device());
    ops::map(unary::square, o, squares);
    for (int64_t k = 0; k < o.shape()[0]; k++) {
      Tensor sums = s.slice(k, k + 1).view({o.cols()});
      ops::sum_rows(matrix(squares, k), {sums});
    }
    ops::scale(1 / double(o.shape()[1]), s, {s});
  }
  static void scale_columns(const Tensor& f, Tensor& o) {
    for (int64_t k = 0; k < o.shape()[0]; k++) {
      Tensor one = matrix(o, k);
      ops::zip(binary::mul, one, f.slice(k, k + 1).view({o.cols()}), one);
    }
  }

  std::string form_ = "paper", neurons_, rescale_, scale_ = "original";
  double momentum_ = 0.95, beta2_, eps_, floor_ = 0;
  bool nesterov_;
  Orthogonalization orthogonalization_;
};

}  // namespace

std::unique_ptr<Optimizer> make_normuon() { return std::make_unique<NorMuon>(); }

}  // namespace murmur
