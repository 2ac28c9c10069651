// optim/orthogonalize.cpp - Newton-Schulz, batched over a bank.
#include "optim/orthogonalize.h"

#include <utility>

#include "tensor/engine.h"

namespace murmur {
namespace {

constexpr double a = 3.4445, b = -4.7750, c = 2.0315;

// The matrices of a bank and what multiplies them, from whichever side is the smaller one.
struct Side {
  const Engine& e;
  bool tall;
  Tensor squared;  // f^2 of every matrix

  void gram(const Tensor& y, Tensor& g) const {  // A = f^2 Y Y^T
    e.matmul(y, y, {g},
             {.transpose_a = tall, .transpose_b = !tall, .alpha = {1, squared}, .symmetric = true});
  }
  void apply(const Tensor& p, const Tensor& y, double beta, Tensor& next) const {  // P Y + beta Y
    e.matmul(tall ? y : p, tall ? p : y, {next}, {.plus = y, .beta = beta});
  }
  // x y + beta plus of symmetric matrices that commute: the result is symmetric again.
  void commuting(const Tensor& x, const Tensor& y, double alpha, const Tensor& plus, double beta,
                 Tensor& to) const {
    e.matmul(x, y, {to}, {.alpha = alpha, .plus = plus, .beta = beta, .symmetric = true});
  }
};

void steps_on_whole(const Side& side, int steps, Tensor& y, Tensor& next, Tensor& gram,
                    Tensor& poly) {
  for (int step = 0; step < steps; step++) {
    side.gram(y, gram);
    side.commuting(gram, gram, c, gram, b, poly);
    side.apply(poly, y, a, next);
    std::swap(y, next);
  }
}

// With Z = b R + c R R, a step takes X to (a I + Z) X and R to (a I + Z) R (a I + Z). The product Q
// of these factors is kept as a^t I + P, so that no identity is ever written. Q is applied after
// two steps and at the end, which starts R anew from X: that is what keeps it accurate.
void steps_on_gram(const Side& side, int steps, Tensor& y, Tensor& next, Tensor& r, Tensor& z) {
  auto like_r = [&] { return Tensor(r.shape(), r.dtype(), r.device()); };
  Tensor p = like_r(), q = like_r(), w = like_r();
  double power = 1;  // a^t
  for (int step = 0, since = 0; step < steps; step++) {
    if (since == 0) side.gram(y, r);
    side.commuting(r, r, c, r, b, z);
    if (since == 0) {
      side.e.copy(z, p);
    } else {  // (a^t I + P)(a I + Z) = a^(t+1) I + a P + a^t Z + P Z
      side.commuting(p, z, 1, p, a, q);
      side.e.scale(power, z, {q, true});
      std::swap(p, q);
    }
    power *= a;
    since++;
    if (step == 1 || step == steps - 1) {
      side.apply(p, y, power, next);
      std::swap(y, next);
      power = 1;
      since = 0;
    } else {
      side.commuting(r, z, 1, r, a, w);
      side.commuting(z, w, 1, w, a, r);
    }
  }
}

}  // namespace

void newton_schulz(Tensor& bank, const NewtonSchulz& how, double scale, Tensor& result) {
  check(bank.shape().rank() == 3,
        [&] { return "newton_schulz: " + text(bank) + " is no bank (K, m, n)"; });
  const Engine& e = engine(bank.device());
  int64_t count = bank.shape()[0], small = std::min(bank.shape()[1], bank.shape()[2]);
  auto make = [&](Shape shape) { return Tensor(shape, bank.dtype(), bank.device()); };
  Tensor f({count}, DType::f32, bank.device()), squared({count}, DType::f32, bank.device());
  e.normalizers(bank, how.eps, f, squared);
  Side side{e, bank.shape()[1] > bank.shape()[2], squared};
  Tensor y = bank, next = make(bank.shape()), gram = make({count, small, small}),
         poly = make({count, small, small});
  (how.gram ? steps_on_gram : steps_on_whole)(side, how.steps, y, next, gram, poly);
  e.scale({scale, f}, y, {result});
}

DType orthogonal_type(const std::string& choice, const Tensor& like) {
  if (choice == "bf16") return DType::bf16;
  if (choice == "fp32") return DType::f32;
  return like.device() == Device::cuda ? DType::bf16 : like.dtype();
}

}  // namespace murmur
