// tensor/cpu/bf16_matmul.h - one bf16 product by oneDNN, with AMX where the chip has it.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace murmur {

// c (+)= alpha op(a) op(b), row-major, sums in fp32, c in fp32 or bf16.
struct Bf16Product {
  int64_t m, n, k;
  const bf16* a;
  int64_t a_stride;
  bool transpose_a;
  const bf16* b;
  int64_t b_stride;
  bool transpose_b;
  void* c;
  int64_t c_stride;
  DType c_type;
  float alpha;
  bool accumulate;
};

void bf16_matmul(const Bf16Product& product);

}  // namespace murmur
