// tensor/cpu/bf16_matmul.h - one bf16 product on one thread, summed in fp32.
#pragma once

#include <cstdint>
#include <functional>

#include "tensor/dtype.h"

namespace murmur {

// An operand's element (line, p), where a line is a row of the left side or a column of the right
// one, and p runs along the inner dimension: data[line * stride + p] where lines are rows in
// memory, data[p * stride + line] where they are columns.
struct Bf16Side {
  const bf16* data;
  int64_t stride;
  bool lines_are_rows;
};

// Sums of left (m, k) times right (k, n), handed over by strips of rows: finish() is called for
// rows [row, row + height) with their sums, `stride` apart, and strips come in order of rows.
struct Bf16Product {
  int64_t m, n, k;
  Bf16Side left, right;
  bool lower = false;  // only sums with row >= column are wanted; m >= n
  std::function<void(int64_t row, int64_t height, float* sums, int64_t stride)> finish;
};

using Bf16Multiply = void (*)(const Bf16Product&);
void onednn_product(const Bf16Product& product);  // where onednn_has_bf16(): from AVX-512 on
bool onednn_has_bf16();
void fp32_product(const Bf16Product& product);  // everywhere
void amx_product(const Bf16Product& product);   // amx_matmul.cpp, where amx_available()
bool amx_available();

// The one for all products, for tests; nullptr, as it is otherwise: the faster one for each.
Bf16Multiply& forced_bf16_product();

}  // namespace murmur
