// optim/dion.cpp - Dion: a direction of low rank, with what it leaves out kept for later (Ahn et
// al., arXiv 2504.05295).
//
//   b = m + g                          everything not yet applied
//   P = orthonormal columns of b Q     one power iteration from the last step's Q
//   R = b^T P                          b's part in the space of P is P R^T
//   m <- b - (1 - mu) P R^T
//   Q <- R, columns of length 1
//   d = sqrt(m / n) P Q^T
//
// Q (n, r) starts as normal numbers; a column that R has nothing for stays as it was, so that a
// gradient of zeros moves nothing and forgets nothing. Kept here is Q^T, (K, r, n).
#include <algorithm>
#include <cmath>

#include "optim/numbers.h"
#include "optim/optimizer.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Dion final : public Optimizer {
 public:
  Dion() {
    learning_rate = 0.01;
    weight_decay = 0.01;
  }

  std::vector<Option> options() override {
    return {{"momentum", &momentum_, "mu: what an applied part leaves behind", 0, 1},
            {"rank", &rank_, "of the direction, as a share of the matrix's smaller side", 1e-6, 1}};
  }
  bool matrices_only() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}},
            {"Q", {bank.count, rank(bank), bank.cols}, 1}};
  }
  void direction(const Question& q, Tensor& d) const override {
    Tensor &b = q.state["momentum"], &right = q.state["Q"];
    auto make = [&](Shape shape) { return Tensor(shape, b.dtype(), b.device()); };
    int64_t count = q.bank.count, rows = q.bank.rows, r = rank(q.bank);
    Tensor left = make({count, rows, r}), raw = make({count, rows, r}), part = make(right.shape());
    ops::scale(1, q.gradient, {b, true});
    ops::matmul(b, right, {raw}, {.transpose_b = true});
    ops::orthonormal_columns(raw, left);
    ops::matmul(left, b, {part}, {.transpose_a = true});  // R^T
    ops::matmul(left, part, {b, true}, {.alpha = -(1 - momentum_)});

    // The step takes columns of R as they are, zeros where there is nothing; Q keeps its own.
    Tensor of_rows = part.view({count * r, q.bank.cols}), kept = right.view(of_rows.shape());
    ops::scale(1e-15, kept, {kept});
    ops::scale(1, of_rows, {kept, true});
    normalize_rows(1e-8, of_rows);
    normalize_rows(1e-30, kept);
    ops::matmul(left, part, {d}, {.alpha = std::sqrt(double(rows) / double(q.bank.cols))});
  }

 private:
  int64_t rank(const Bank& bank) const {
    double smaller = double(std::min(bank.rows, bank.cols));
    return std::max<int64_t>(1, int64_t(std::lround(rank_ * smaller)));
  }
  static void normalize_rows(double eps, Tensor& x) {
    Tensor norm = norms(x.rows(), x);
    add(eps, norm);
    divide_parts(1, norm, x);
  }

  double momentum_ = 0.95, rank_ = 1;
};

}  // namespace

std::unique_ptr<Optimizer> make_dion() { return std::make_unique<Dion>(); }

}  // namespace murmur
