// optim/orthogonalize.cpp - Newton-Schulz, batched over a bank.
#include "optim/orthogonalize.h"

#include <utility>

#include "tensor/engine.h"

namespace murmur {

void newton_schulz(Tensor& bank, int steps, double scale, Tensor& result, double eps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  check(bank.shape().rank() == 3,
        [&] { return "newton_schulz: " + text(bank) + " is no bank (K, m, n)"; });
  const Engine& e = engine(bank.device());
  bool tall = bank.shape()[1] > bank.shape()[2];
  int64_t count = bank.shape()[0], small = std::min(bank.shape()[1], bank.shape()[2]);
  auto like_bank = [&](Shape shape) { return Tensor(shape, bank.dtype(), bank.device()); };
  Tensor f({count}, DType::f32, bank.device()), squared({count}, DType::f32, bank.device());
  e.normalizers(bank, eps, f, squared);
  Tensor y = bank, next = like_bank(bank.shape());
  Tensor gram = like_bank({count, small, small}), poly = like_bank(gram.shape());
  for (int step = 0; step < steps; step++) {
    e.matmul(y, y, {gram},
             {.transpose_a = tall, .transpose_b = !tall, .alpha = {1, squared}, .symmetric = true});
    e.matmul(gram, gram, {poly}, {.alpha = c, .plus = gram, .beta = b, .symmetric = true});
    e.matmul(tall ? y : poly, tall ? poly : y, {next}, {.plus = y, .beta = a});
    std::swap(y, next);
  }
  e.scale({scale, f}, y, {result});
}

DType orthogonal_type(const std::string& choice, const Tensor& like) {
  if (choice == "bf16") return DType::bf16;
  if (choice == "fp32") return DType::f32;
  return like.device() == Device::cuda ? DType::bf16 : like.dtype();
}

}  // namespace murmur
