// tensor/cpu/gemm.h - one block of a matrix product on one thread, its sums in fp32.
#pragma once

#include <cstdint>  // and no header with functions: gemm_kernel.cpp is compiled many times

namespace murmur {

// Element (line, p), where a line is a row of the left side or a column of the right one and p runs
// along the inner dimension: data[line * stride + p] where lines are rows in memory,
// data[p * stride + line] where they are columns.
struct GemmSide {
  const void* data;
  int64_t stride;
  bool lines_are_rows;
  bool is_bf16;  // else fp32
};

// sums (+)= left (m, k) right (k, n). A sum adds its products in the order of the inner dimension,
// whatever block it is computed in.
struct GemmBlock {
  int64_t m, n, k;  // all at least 1
  GemmSide left, right;
  // What may be left out, in half of a symmetric result and in causal attention. Of the left side
  // it is 0, as far as 64 elements from what may not.
  bool lower = false;          // sums with column > row + diagonal
  bool left_is_lower = false;  // elements (i, p) of the left side with p > i + diagonal
  bool left_is_upper = false;  // those with i > p + diagonal
  int64_t diagonal = 0;
  float* sums = nullptr;    // (m, n); nullptr: they exist for finish() alone
  int64_t stride = 0;       // from one row of them to the next
  bool accumulate = false;  // add to what is there
  // Called for rows [row, row + height), in order of rows, while their sums are in the first-level
  // cache. nullptr: not wanted.
  void (*finish)(const void* context, int64_t row, int64_t height, float* sums,
                 int64_t stride) = nullptr;
  const void* context = nullptr;
};

// Products of one type of words. Either takes sides of both types.
struct GemmProduct {
  int64_t rows;  // of a strip: blocks had best be a multiple of it high, and of 32 wide
  void (*multiply)(const GemmBlock&, float* scratch);
  int64_t (*scratch_size)(const GemmBlock&);  // floats, which must be aligned to 64 bytes
};

// What gemm_kernel.cpp is for one instruction set. bf16 rounds a side of fp32 to bf16 first.
struct GemmKernel {
  const char* name;
  GemmProduct fp32, bf16;
};
extern const GemmKernel gemm_avx2, gemm_avx512, gemm_avx512_bf16, gemm_amx;
inline constexpr const GemmKernel* kGemmKernels[] = {&gemm_avx2, &gemm_avx512, &gemm_avx512_bf16,
                                                     &gemm_amx};

// The last of them that this processor has, or the one that the environment variable MURMUR_CPU
// names; for tests, the one that is forced.
const GemmKernel& gemm_kernel();
bool runs_here(const GemmKernel& kernel);
const GemmKernel*& forced_gemm_kernel();

// With scratch memory of this thread's own, kept for the next call.
void run(const GemmProduct& product, const GemmBlock& block);

}  // namespace murmur
