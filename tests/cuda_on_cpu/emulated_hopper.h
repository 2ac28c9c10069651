// tests/cuda_on_cpu/emulated_hopper.h - the functions of tensor/cuda/hopper.h for g++.
//
// Unkind where hardware may be: a tile is NaN until it arrives, and it arrives when no thread can
// go on without it (or at any moment, in shuffled orders). A product's accumulators are NaN until
// the wait that covers its group, and its operands must be the same then as they were at its start.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "block.h"
#include "emulated_instructions.h"

namespace cuda_on_cpu {

struct TileProduct {
  float* d;
  const uint32_t* a_registers;  // nullptr: a is in shared memory
  uint64_t a, b;
  int columns;  // of b and d
  bool accumulate, a_outer, b_outer;
};
void multiply(const TileProduct& product);
void fence_products();
void commit_products();
void wait_products(int may_remain);

void barrier_init(uint64_t& state, int arrivals);
void barrier_arrive(uint64_t& state, int bytes);
void barrier_wait(uint64_t& state, int phase);
void load_tile(void* shared, const CUtensorMap& map, int x, int y, int z, uint64_t& barrier);
void fence_async();
void set_registers(int count);

}  // namespace cuda_on_cpu

namespace murmur::cuda {

struct Mbarrier {
  uint64_t state;
};
inline void barrier_init(Mbarrier& b, int arrivals) {
  cuda_on_cpu::barrier_init(b.state, arrivals);
}
inline void arrive(Mbarrier& b) { cuda_on_cpu::barrier_arrive(b.state, 0); }
inline void arrive_expecting(Mbarrier& b, int bytes) {
  cuda_on_cpu::barrier_arrive(b.state, bytes);
}
inline void wait(Mbarrier& b, int phase) { cuda_on_cpu::barrier_wait(b.state, phase); }
inline void fence_async() { cuda_on_cpu::fence_async(); }
inline void sync_some(int id, int threads) {
  cuda_on_cpu::barrier(unsigned(id), unsigned(threads));
}
template <int N>
void shrink_registers() {
  cuda_on_cpu::set_registers(N);
}
template <int N>
void grow_registers() {
  cuda_on_cpu::set_registers(N);
}

using TileMap = CUtensorMap;
inline void load_tile(void* shared, const TileMap& map, int x, int y, int z, Mbarrier& b) {
  cuda_on_cpu::load_tile(shared, map, x, y, z, b.state);
}

inline uint64_t describe(const void* shared, int next_panel = 16) {
  return uint64_t((shared_address(shared) & 0x3ffff) >> 4) | uint64_t(next_panel >> 4) << 16 |
         uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

inline void fence_products() { cuda_on_cpu::fence_products(); }
inline void commit_products() { cuda_on_cpu::commit_products(); }
template <int N>
void wait_products() {
  cuda_on_cpu::wait_products(N);
}
template <Major a_major = Major::k, Major b_major = Major::k, int N>
void multiply(float (&d)[N][4], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(N == 8 || N == 16);
  cuda_on_cpu::multiply(
      {d[0], nullptr, a, b, 8 * N, accumulate, a_major == Major::outer, b_major == Major::outer});
}
template <Major b_major, int N>
void multiply(float (&d)[N][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(N == 8 || N == 16);
  cuda_on_cpu::multiply({d[0], a, 0, b, 8 * N, accumulate, false, b_major == Major::outer});
}

}  // namespace murmur::cuda
