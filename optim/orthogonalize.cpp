// optim/orthogonalize.cpp - polynomial steps towards the polar factor, batched over a bank.
#include "optim/orthogonalize.h"

#include <algorithm>
#include <utility>

#include "optim/numbers.h"
#include "optim/orthogonalizers.h"
#include "optim/svd.h"
#include "tensor/backend.h"
#include "tensor/nearest.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

// The matrices of a bank and what multiplies them, from whichever side is the smaller one.
struct Side {
  bool tall;
  int64_t count, small;
  Tensor squared;  // f^2 of every matrix

  void gram(const Tensor& y, Tensor& g) const {  // A = f^2 Y Y^T
    ops::matmul(
        y, y, {g},
        {.transpose_a = tall, .transpose_b = !tall, .alpha = {1, squared}, .symmetric = true});
  }
  void apply(const Tensor& p, const Tensor& y, double beta, Tensor& next) const {  // P Y + beta Y
    ops::matmul(tall ? y : p, tall ? p : y, {next}, {.plus = y, .beta = beta});
  }
  // alpha x y + beta plus of symmetric matrices that commute: the result is symmetric again.
  void commuting(const Tensor& x, const Tensor& y, double alpha, const Tensor& plus, double beta,
                 Tensor& to) const {
    ops::matmul(x, y, {to}, {.alpha = alpha, .plus = plus, .beta = beta, .symmetric = true});
  }
  void polynomial(const Quintic& p, const Tensor& a, Tensor& to) const {  // b A + c A A
    p.c == 0 ? ops::scale(p.b, a, {to}) : commuting(a, a, p.c, a, p.b, to);
  }

  // X <- diag(rows) X and X <- X diag(columns); both (count, length).
  void scale_rows(const Tensor& by, Tensor& x) const {
    Tensor rows = x.view({by.numel(), x.cols()});
    ops::scale({1, by.view({by.numel()})}, rows, {rows});
  }
  void scale_columns(const Tensor& by, Tensor& x) const {
    for (int64_t k = 0; k < count; k++) {
      Tensor one = x.slice(k, k + 1).view({x.shape()[1], x.shape()[2]});
      ops::zip(binary::mul, one, by.slice(k, k + 1).view({x.shape()[2]}), one);
    }
  }
};

// Y <- diag(s) Y and A <- diag(s) A diag(s), s_i = (sum_j |A_ij|)^(-1/2) / safety.
void precondition(const Side& side, double safety, Tensor& y, Tensor& gram, Tensor& scratch) {
  Shape shape{side.count, side.small};
  Tensor s(shape, compute_type(y.dtype()), y.device()), rounded(shape, y.dtype(), y.device());
  ops::map(unary::abs, gram, scratch);
  Tensor sums = s.view({s.numel()});
  ops::sum(1, scratch.view({s.numel(), side.small}), sums);
  at_least(1e-7, s);  // rows of zeros
  ops::map(unary::sqrt, s, s);
  ops::map(unary::reciprocal, s, s);
  ops::scale(1 / safety, s, {s});
  ops::copy(s, rounded);  // the same numbers everywhere, or A would not stay symmetric
  ops::copy(rounded, s);
  side.scale_rows(s, gram);
  side.scale_columns(rounded, gram);
  side.tall ? side.scale_columns(rounded, y) : side.scale_rows(s, y);
}

void steps_on_whole(const Side& side, const Orthogonalizer& method, int steps, bool have_gram,
                    Tensor& y, Tensor& next, Tensor& gram, Tensor& poly) {
  for (int step = 0; step < steps; step++) {
    if (step > 0 || !have_gram) side.gram(y, gram);
    side.polynomial(method.polynomial(step), gram, poly);
    side.apply(poly, y, method.polynomial(step).a, next);
    std::swap(y, next);
  }
}

// With Z = b R + c R R, a step takes X to (a I + Z) X and R to (a I + Z) R (a I + Z). The product Q
// of these factors is kept as a_1 .. a_t I + P, so that no identity is ever written. Q is applied
// after two steps, then after every three, and at the end, which starts R anew from X: that is what
// keeps it accurate.
void steps_on_gram(const Side& side, const Orthogonalizer& method, int steps, bool have_gram,
                   Tensor& y, Tensor& next, Tensor& r, Tensor& z) {
  Tensor p = like(r), q = like(r), w = like(r);
  double power = 1;  // a_1 .. a_t
  for (int step = 0, since = 0, most = 2; step < steps; step++) {
    double a = method.polynomial(step).a;
    if (since == 0 && (step > 0 || !have_gram)) side.gram(y, r);
    side.polynomial(method.polynomial(step), r, z);
    if (since == 0) {
      ops::copy(z, p);
    } else {  // (power I + P)(a I + Z) = power a I + a P + power Z + P Z
      side.commuting(p, z, 1, p, a, q);
      ops::scale(power, z, {q, true});
      std::swap(p, q);
    }
    power *= a;
    since++;
    if (since == most || step == steps - 1) {
      side.apply(p, y, power, next);
      std::swap(y, next);
      power = 1;
      since = 0;
      most = 3;
    } else {
      side.commuting(r, z, 1, r, a, w);
      side.commuting(z, w, 1, w, a, r);
    }
  }
}

}  // namespace

std::vector<Option> Orthogonalization::options() {
  return {
      {"orthogonalizer", &method, "see murmur list orthogonalizers", 0, 0,
       names_of(orthogonalizer_list())},
      {"ns_steps", &steps, "of the orthogonalizer; 0: as many as it usually does", 0, 100},
      {"ns_form",
       &form,
       "gram: fewer operations from 2:1 on, larger errors",
       0,
       0,
       {"standard", "gram"}},
      {"ns_dtype", &dtype, "what the orthogonalizer computes in", 0, 0, {"auto", "fp32", "bf16"}}};
}

DType Orthogonalization::type(const Tensor& like) const {
  if (dtype == "bf16") return DType::bf16;
  if (dtype == "fp32") return DType::f32;
  bool half = like.dtype() == DType::f32 && backend(like.device()).fast_bf16() &&
              !find_orthogonalizer(method).wants_fp32;
  return half ? DType::bf16 : like.dtype();
}

void orthogonalize(Tensor& bank, const Orthogonalization& how, double scale, Tensor& result) {
  check(bank.shape().rank() == 3,
        [&] { return "orthogonalize: " + text(bank) + " is no bank (K, m, n)"; });
  const Orthogonalizer& method = find_orthogonalizer(how.method);
  int64_t rows = bank.shape()[1], cols = bank.shape()[2];
  if (method.steps == 0) {
    polar_factors(bank, result);
    return ops::scale(scale, result, {result});
  }
  Side side{rows > cols, bank.shape()[0], std::min(rows, cols), {}};
  auto make = [&](Shape shape, DType type) { return Tensor(shape, type, bank.device()); };
  DType exact = compute_type(bank.dtype());
  Tensor f = make({side.count}, exact);
  side.squared = make({side.count}, exact);
  double safety = method.preconditioned ? 1 : method.safety;
  ops::normalizers(bank, method.eps / safety, f, side.squared);
  if (safety != 1) {
    ops::scale(1 / safety, f, {f});
    ops::scale(1 / (safety * safety), side.squared, {side.squared});
  }
  Tensor y = bank, next = make(bank.shape(), bank.dtype());
  Tensor gram = make({side.count, side.small, side.small}, bank.dtype());
  Tensor poly = make(gram.shape(), bank.dtype());
  if (method.preconditioned) {
    side.gram(y, gram);
    precondition(side, method.safety, y, gram, poly);
  }
  bool on_gram = how.form == "gram" && std::max(rows, cols) >= 2 * side.small;
  int steps = how.steps ? int(how.steps) : method.steps;
  (on_gram ? steps_on_gram : steps_on_whole)(side, method, steps, method.preconditioned, y, next,
                                             gram, poly);
  ops::scale({scale, f}, y, {result});
}

}  // namespace murmur
