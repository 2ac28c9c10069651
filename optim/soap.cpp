// optim/soap.cpp - SOAP: Adam in the eigenbasis of Shampoo's statistics (Vyas et al.,
// arXiv 2409.11321; order of operations of github.com/nikhilvyas/SOAP).
//
//   step 1:  L <- (1 - bs) g g^T      R <- (1 - bs) g^T g      QL, QR = eigenvectors; d = 0
//   later:   g' = QL^T g QR           m <- b1 m + (1 - b1) g'     v <- b2 v + (1 - b2) g'^2
//            u = sqrt(1 - b2^k) / (1 - b1^k)  QL (m / (sqrt(v) + eps)) QR^T          k = t - 1
//            W <- (1 - lr decay) (W - lr u)
//            L <- bs L + (1 - bs) g g^T     R <- bs R + (1 - bs) g^T g
//            every `frequency` updates:  Q <- orthonormal columns of L Q, largest first
//
// m is turned into the new basis; v only follows the order of the columns. Sides longer than
// `max_dim` have no basis. Bases are made in double precision on the CPU: on long sides they cost
// far more than the rest.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "optim/numbers.h"
#include "optim/optimizer.h"
#include "optim/svd.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

// left^T x right, or with `back` left x right^T. An empty basis is the identity.
Tensor turned(const Tensor& left, const Tensor& x, const Tensor& right, bool back) {
  Tensor y = x;
  if (left) {
    Tensor next = like(x);
    ops::matmul(left, y, {next}, {.transpose_a = !back});
    y = next;
  }
  if (right) {
    Tensor next = like(x);
    ops::matmul(y, right, {next}, {.transpose_b = back});
    y = next;
  }
  return y;
}

// One power iteration of every basis, columns by decreasing eigenvalue; returns, matrix by matrix,
// where each column was before.
std::vector<std::vector<int64_t>> refresh(const Tensor& statistic, Tensor& basis) {
  int64_t count = basis.shape()[0], n = basis.shape()[2];
  Tensor s(basis.shape(), DType::f64), q(basis.shape(), DType::f64),
      product(basis.shape(), DType::f64);
  ops::copy(statistic, s);
  ops::copy(basis, q);
  ops::matmul(s, q, {product}, {});
  std::vector<std::vector<int64_t>> orders;
  for (int64_t k = 0; k < count; k++) {
    const double *before = q.data<double>() + k * n * n,
                 *after = product.data<double>() + k * n * n;
    std::vector<double> value(size_t(n), 0.0);  // of q_j^T S q_j
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) value[size_t(j)] += before[i * n + j] * after[i * n + j];
    }
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), int64_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t i, int64_t j) { return value[size_t(i)] > value[size_t(j)]; });
    double* to = s.data<double>() + k * n * n;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) to[i * n + j] = after[i * n + order[size_t(j)]];
    }
    orders.push_back(std::move(order));
  }
  ops::orthonormal_columns(s, q);
  ops::copy(q, basis);
  return orders;
}

// Rows, or columns, of every matrix into a new order.
void reorder(const std::vector<std::vector<int64_t>>& orders, bool rows, Tensor& x) {
  int64_t m = x.shape()[1], n = x.shape()[2];
  Tensor from(x.shape(), DType::f64), to(x.shape(), DType::f64);
  ops::copy(x, from);
  for (int64_t k = 0; k < x.shape()[0]; k++) {
    const std::vector<int64_t>& order = orders[size_t(k)];
    const double* a = from.data<double>() + k * m * n;
    double* b = to.data<double>() + k * m * n;
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++)
        b[i * n + j] = rows ? a[order[size_t(i)] * n + j] : a[i * n + order[size_t(j)]];
    }
  }
  ops::copy(to, x);
}

class Soap final : public Optimizer {
 public:
  Soap() {
    learning_rate = 3e-3;
    weight_decay = 0.01;
  }

  std::vector<Option> options() override {
    return {{"beta1", &beta1_, "decay of the mean of gradients", 0, 0.999999},
            {"beta2", &beta2_, "decay of the mean of squared gradients", 0, 0.999999},
            {"shampoo_beta", &shampoo_beta_, "decay of the statistics of rows and columns", 0,
             0.999999},
            {"eps", &eps_, "added to the root of the mean square", 1e-30, 1},
            {"frequency", &frequency_, "updates between new bases", 1, 1e9},
            {"max_dim", &max_dim_, "longest side that has a basis", 0, 1e9}};
  }
  bool matrices_only() const override { return true; }
  bool replayable() const override { return false; }  // the first step, and every tenth
  bool decays_itself() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    int64_t count = bank.count, m = bank.rows, n = bank.cols;
    std::vector<StateShape> all = {{"m", {count, m, n}}, {"v", {count, m, n}}};
    if (m <= max_dim_) all.insert(all.end(), {{"L", {count, m, m}}, {"QL", {count, m, m}}});
    if (n <= max_dim_) all.insert(all.end(), {{"R", {count, n, n}}, {"QR", {count, n, n}}});
    return all;
  }

  void direction(const Question& q, Tensor& d) const override {
    auto kept = [&](const char* name) {
      auto it = q.state.find(name);
      return it == q.state.end() ? Tensor() : it->second;
    };
    Tensor left = kept("L"), right = kept("R"), left_basis = kept("QL"), right_basis = kept("QR");
    auto gather = [&] {
      if (left) lerp_product(q.gradient, true, left);
      if (right) lerp_product(q.gradient, false, right);
    };
    auto updates = int64_t(item(q.number)) - 1;
    if (updates == 0) {
      gather();
      if (left) eigenvectors(left, left_basis);
      if (right) eigenvectors(right, right_basis);
      return ops::fill(d, 0);
    }
    Tensor m = kept("m"), v = kept("v"), w = like(m);
    Tensor g = turned(left_basis, q.gradient, right_basis, false);
    ops::lerp(1 - beta1_, g, m);
    ops::map(unary::square, g, w);
    ops::lerp(1 - beta2_, w, v);
    ops::map(unary::sqrt, v, w);
    add(eps_, w);
    ops::zip(binary::div, m, w, w);
    double k = double(updates);
    double correction = std::sqrt(1 - std::pow(beta2_, k)) / (1 - std::pow(beta1_, k));
    double rate = q.rate.value * (q.rate.by ? item(q.rate.by) : 1);
    ops::scale(correction * (1 - rate * q.decay), turned(left_basis, w, right_basis, true), {d});
    if (q.decay != 0) ops::scale(q.decay, q.value, {d, true});

    bool due = updates % frequency_ == 0;
    Tensor unturned = due ? turned(left_basis, m, right_basis, true) : Tensor();
    gather();
    if (!due) return;
    if (left) reorder(refresh(left, left_basis), true, v);
    if (right) reorder(refresh(right, right_basis), false, v);
    ops::copy(turned(left_basis, unturned, right_basis, false), m);
  }

 private:
  // statistic <- bs statistic + (1 - bs) g g^T  (g^T g)
  void lerp_product(const Tensor& g, bool of_rows, Tensor& statistic) const {
    Tensor product = like(statistic);
    ops::matmul(g, g, {product},
                {.transpose_a = !of_rows, .transpose_b = of_rows, .symmetric = true});
    ops::lerp(1 - shampoo_beta_, product, statistic);
  }

  double beta1_ = 0.95, beta2_ = 0.95, shampoo_beta_ = 0.95, eps_ = 1e-8;
  int64_t frequency_ = 10, max_dim_ = 10000;
};

}  // namespace

std::unique_ptr<Optimizer> make_soap() { return std::make_unique<Soap>(); }

}  // namespace murmur
