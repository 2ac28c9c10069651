// tests/cuda_on_cpu/emulated_instructions.h - the functions of tensor/cuda/instructions.h for g++.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.h"
#include "tensor/dtype.h"

#define MURMUR_SHARED(name) unsigned char* name = cuda_on_cpu::dynamic_shared

namespace cuda_on_cpu {

struct Mma {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};
struct Matrices {
  uint32_t* r;
  const void* row;
};
void mma(void* const* lanes, uint32_t came);  // as Work
void load_matrices(void* const* lanes, uint32_t came);
void load_matrices_transposed(void* const* lanes, uint32_t came);
void copy_async(void* to, const void* from, bool valid);

}  // namespace cuda_on_cpu

namespace murmur::cuda {

// Only good for being compared: the real one is an address that fits into 32 bits.
inline uint32_t shared_address(const void* p) {
  return uint32_t(static_cast<const unsigned char*>(p) - cuda_on_cpu::dynamic_shared);
}

inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  cuda_on_cpu::Mma m = {d, a, {b0, b1}};
  cuda_on_cpu::meet(~0u, cuda_on_cpu::mma, &m);
}

inline void load_matrices(uint32_t (&r)[4], const void* row) {
  cuda_on_cpu::Matrices m = {r, row};
  cuda_on_cpu::meet(~0u, cuda_on_cpu::load_matrices, &m);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  cuda_on_cpu::Matrices m = {r, row};
  cuda_on_cpu::meet(~0u, cuda_on_cpu::load_matrices_transposed, &m);
}

// The bytes arrive at the wait that covers their group; until then there are 0xff.
inline void copy_async(void* shared, const void* global, bool valid) {
  cuda_on_cpu::copy_async(shared, global, valid);
}
inline void copy_async_commit() { cuda_on_cpu::current->copies.commit(); }
template <int N>
void copy_async_wait() {
  cuda_on_cpu::current->copies.wait(N);
}

inline uint32_t pack(float low, float high) {
  return uint32_t(bf16(low).bits) | uint32_t(bf16(high).bits) << 16;
}

inline float exp2_fast(float x) {
  float y = exp2f(x);
  return y < 0x1p-126f ? 0 : y;
}

}  // namespace murmur::cuda
