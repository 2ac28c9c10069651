// train/objective.cpp - values and gradients in closed form, and the minima that are known.
#include "train/objective.h"

#include <fmt/format.h>

#include <cmath>

#include "nn/parameter.h"  // stream_of
#include "optim/svd.h"
#include "tensor/nearest.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Tensor matrix(int64_t rows, int64_t cols) { return Tensor({rows, cols}, DType::f64); }

Tensor product(const Tensor& a, const Tensor& b, const MatmulForm& form = {}) {
  Tensor c = matrix(form.transpose_a ? a.cols() : a.rows(), form.transpose_b ? b.rows() : b.cols());
  ops::matmul(a, b, {c}, form);
  return c;
}

Tensor difference(const Tensor& a, const Tensor& b) {
  Tensor d = matrix(a.rows(), a.cols());
  ops::zip(binary::sub, a, b, d);
  return d;
}

double inner(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); i++) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

// Normal numbers that all nodes have in common, plus heterogeneity times a node's own.
Tensor drawn(const Landscape& l, const std::string& what, int64_t node, int64_t rows,
             int64_t cols) {
  Tensor x = matrix(rows, cols), own = matrix(rows, cols);
  auto draw = [&](const std::string& name, Tensor& to) {
    ops::random_normal(uint64_t(l.seed), stream_of(name), 0, 1, to);
  };
  draw(what, x);
  draw(fmt::format("{} of node {}", what, node), own);
  ops::scale(l.heterogeneity, own, {x, true});
  return x;
}

// A factor of a Hessian: A = S V^T, V orthogonal, squares of S from 1 down to 1 / condition, each
// the same fraction of the one before.
Tensor drawn_factor(const Landscape& l, int64_t node) {
  int64_t n = l.rows;
  Tensor v({1, n, n}, DType::f64), a = matrix(n, n);
  ops::orthonormal_columns(drawn(l, "factor", node, n, n).view({1, n, n}), v);
  for (int64_t i = 0; i < n; i++) {
    double s = n > 1 ? std::pow(l.condition, -0.5 * double(i) / double(n - 1)) : 1;
    for (int64_t j = 0; j < n; j++) a.data<double>()[i * n + j] = s * v.data<double>()[j * n + i];
  }
  return a;
}

// f_i = sum of phi(A_i (X - C_i)), entry by entry; the gradient is A_i^T phi'(..).
class Residuals : public Objective {
 public:
  using Function = double (*)(double);
  Residuals(const Landscape& l, Function phi, Function slope)
      : Objective(l.nodes), phi_(phi), slope_(slope) {
    for (int64_t i = 0; i < l.nodes; i++) {
      factors_.push_back(drawn_factor(l, i));
      centres_.push_back(drawn(l, "centre", i, l.rows, l.cols));
    }
  }
  double value(int64_t node, const Tensor& x) const override {
    Tensor r = residual(node, x);
    double sum = 0;
    for (int64_t i = 0; i < r.numel(); i++) sum += phi_(r.data<double>()[i]);
    return sum;
  }
  void gradient(int64_t node, const Tensor& x, Tensor& g) const override {
    Tensor r = residual(node, x);
    for (int64_t i = 0; i < r.numel(); i++) r.data<double>()[i] = slope_(r.data<double>()[i]);
    ops::matmul(factors_[size_t(node)], r, {g}, {.transpose_a = true});
  }

 protected:
  std::vector<Tensor> factors_, centres_;  // A_i, C_i

 private:
  Tensor residual(int64_t node, const Tensor& x) const {
    return product(factors_[size_t(node)], difference(x, centres_[size_t(node)]));
  }
  Function phi_, slope_;
};

class Quadratic final : public Residuals {
 public:
  explicit Quadratic(const Landscape& l)
      : Residuals(
            l, [](double r) { return r * r / 2; }, [](double r) { return r; }) {
    // Where the gradient H X - R vanishes, H = mean of A_i^T A_i = V diag(h) V^T:
    // f = f(0) - <R, H^-1 R> / 2
    int64_t n = l.rows;
    Tensor zero = Tensor::zeros({n, l.cols}, DType::f64), r = mean_gradient(zero);
    Tensor hessian = Tensor::zeros({1, n, n}, DType::f64), v({1, n, n}, DType::f64);
    Tensor h = hessian.view({n, n});
    for (const Tensor& a : factors_)
      ops::matmul(a, a, {h, true}, {.transpose_a = true, .alpha = 1 / double(l.nodes)});
    eigenvectors(hessian, v);
    Tensor turned = product(v.view({n, n}), r, {.transpose_a = true}),
           lengths = product(h, v.view({n, n}));
    least_ = mean_value(zero);
    for (int64_t i = 0; i < n; i++) {
      double square = 0, eigenvalue = 0;
      for (int64_t j = 0; j < l.cols; j++)
        square += std::pow(turned.data<double>()[i * l.cols + j], 2);
      for (int64_t k = 0; k < n; k++) eigenvalue += std::pow(lengths.data<double>()[k * n + i], 2);
      least_ -= square / std::sqrt(eigenvalue) / 2;
    }
  }
  std::optional<double> least() const override { return least_; }

 private:
  double least_;
};

// With M the mean of the C_i C_i^T, f = |X X^T - M|^2 / 4 and the spread of the C_i C_i^T, which no
// X changes; the best X X^T takes the largest eigenvalues of M (Eckart & Young).
class Factorisation final : public Objective {
 public:
  explicit Factorisation(const Landscape& l) : Objective(l.nodes) {
    int64_t n = l.rows;
    Tensor mean = Tensor::zeros({1, n, n}, DType::f64), v({1, n, n}, DType::f64);
    Tensor m = mean.view({n, n});
    for (int64_t i = 0; i < l.nodes; i++) {
      Tensor c = drawn(l, "centre", i, n, l.cols);
      for (int64_t k = 0; k < c.numel(); k++) {
        double place = l.cols > 1 ? double(k % l.cols) / double(l.cols - 1) : 0;
        c.data<double>()[k] *= std::pow(l.condition, -0.5 * place) / std::sqrt(double(n));
      }
      targets_.push_back(product(c, c, {.transpose_b = true}));
      ops::scale(1 / double(l.nodes), targets_.back(), {m, true});
    }
    eigenvectors(mean, v);
    Tensor lengths = product(m, v.view({n, n}));
    for (int64_t i = l.cols; i < n; i++) {
      for (int64_t k = 0; k < n; k++) least_ += std::pow(lengths.data<double>()[k * n + i], 2) / 4;
    }
    for (const Tensor& target : targets_) {
      Tensor d = difference(target, m);
      least_ += inner(d, d) / 4 / double(l.nodes);
    }
  }
  double value(int64_t node, const Tensor& x) const override {
    Tensor e = error(node, x);
    return inner(e, e) / 4;
  }
  void gradient(int64_t node, const Tensor& x, Tensor& g) const override {
    ops::matmul(error(node, x), x, {g}, {});
  }
  std::optional<double> least() const override { return least_; }

 private:
  Tensor error(int64_t node, const Tensor& x) const {
    return difference(product(x, x, {.transpose_b = true}), targets_[size_t(node)]);
  }
  std::vector<Tensor> targets_;  // C_i C_i^T
  double least_ = 0;
};

std::unique_ptr<Objective> make_quadratic(const Landscape& l) {
  return std::make_unique<Quadratic>(l);
}
// Without r^2 / 10, X that runs away from everything would be stationary.
std::unique_ptr<Objective> make_robust(const Landscape& l) {
  return std::make_unique<Residuals>(
      l, [](double r) { return (r * r / (1 + r * r) + r * r / 10) / 2; },
      [](double r) { return r / ((1 + r * r) * (1 + r * r)) + r / 10; });
}
std::unique_ptr<Objective> make_factorisation(const Landscape& l) {
  return std::make_unique<Factorisation>(l);
}

}  // namespace

double Objective::mean_value(const Tensor& x) const {
  double sum = 0;
  for (int64_t i = 0; i < nodes_; i++) sum += value(i, x);
  return sum / double(nodes_);
}

Tensor Objective::mean_gradient(const Tensor& x) const {
  Tensor sum = Tensor::zeros(x.shape(), DType::f64), one(x.shape(), DType::f64);
  for (int64_t i = 0; i < nodes_; i++) {
    gradient(i, x, one);
    ops::scale(1 / double(nodes_), one, {sum, true});
  }
  return sum;
}

// <U V^T, U S V^T> is the sum of S.
double nuclear_norm(const Tensor& x) {
  Tensor bank = x.view({1, x.rows(), x.cols()}), polar(bank.shape(), DType::f64);
  polar_factors(bank, polar);
  return inner(polar, bank);
}

const std::vector<ObjectiveEntry>& objective_list() {
  static const std::vector<ObjectiveEntry> list = {
#define OBJECTIVE(name, summary) {#name, summary, make_##name},
#include "train/objectives.def"
#undef OBJECTIVE
  };
  return list;
}

std::unique_ptr<Objective> make_objective(const std::string& name, const Landscape& landscape) {
  return find_named("objective", objective_list(), name).make(landscape);
}

}  // namespace murmur
