// tensor/cuda/instructions.h - the GPU instructions that C++ has no words for, one function each.
//
// Under g++ the same names come from tests/cuda_on_cpu/, where the kernels run on fibers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "tensor/dtype.h"

#ifdef __CUDACC__

// The launch's dynamic shared memory as bytes, 1024-byte aligned.
#define MURMUR_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

namespace murmur::cuda {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// d (16x8) += a (16x16) b (16x8): bf16 operands, fp32 sums. Lane l holds, with g = l / 4 and
// t = l % 4, two neighbours per register:
//   a: rows g, g + 8, g, g + 8; columns 2t, 2t, 2t + 8, 2t + 8     b: rows 2t, 2t + 8; column g
//   d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
__device__ inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of bf16 from shared memory. Lane l gives the address of row l % 8 (16 bytes) of
// matrix l / 8; register i of lane l receives elements 2 (l % 4) and the next of row l / 4 of
// matrix i. Transposed: of column l / 4.
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Starts copying 16 bytes into shared memory; zeros where `valid` is false (nothing is read then).
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
// Closes a group of copies; copy_async_wait<N>() returns when at most the N youngest groups of this
// thread are still under way.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Two floats as two bf16, rounded to nearest even; `low` in the lower half.
__device__ inline uint32_t pack(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// 2^x, relative error 2^-22; results below 2^-126 are 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace murmur::cuda

#else
#include <emulated_instructions.h>
#endif
