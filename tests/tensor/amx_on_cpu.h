// tests/tensor/amx_on_cpu.h - AMX's tile instructions played by plain loops: included before all
// else when gemm_kernel.cpp is compiled for a test, so that its AMX code runs where there is no
// AMX.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _tile_loadconfig
#define _tile_loadconfig played_loadconfig
#undef _tile_release
#define _tile_release played_release
#undef _tile_zero
#define _tile_zero played_zero
#undef _tile_loadd
#define _tile_loadd played_loadd
#undef _tile_stored
#define _tile_stored played_stored
#undef _tile_dpbf16ps
#define _tile_dpbf16ps played_dpbf16ps

namespace {

thread_local bool tiles_are_there = false;
thread_local char tiles[8][16][64];  // 16 rows of 64 bytes

inline void played_loadconfig(const void*) { tiles_are_there = true; }
inline void played_release() { tiles_are_there = false; }
inline void played_zero(int t) { std::memset(tiles[t], 0, sizeof tiles[t]); }
inline void played_loadd(int t, const void* from, int64_t stride) {
  if (!tiles_are_there) __builtin_trap();
  for (int i = 0; i < 16; i++)
    std::memcpy(tiles[t][i], static_cast<const char*>(from) + i * stride, 64);
}
inline void played_stored(int t, void* to, int64_t stride) {
  for (int i = 0; i < 16; i++) std::memcpy(static_cast<char*>(to) + i * stride, tiles[t][i], 64);
}
inline float half_of(uint32_t pair, bool second) {
  return __builtin_bit_cast(float, second ? pair & 0xffff0000u : pair << 16);
}
// sums[i][j] += left[i][q] . right[q][j], dot products of pairs
inline void played_dpbf16ps(int sums, int left, int right) {
  float c[16][16];
  uint32_t a[16][16], b[16][16];
  std::memcpy(c, tiles[sums], sizeof c);
  std::memcpy(a, tiles[left], sizeof a);
  std::memcpy(b, tiles[right], sizeof b);
  for (int i = 0; i < 16; i++) {
    for (int q = 0; q < 16; q++) {
      for (int second = 0; second < 2; second++) {
        for (int j = 0; j < 16; j++)
          c[i][j] += half_of(a[i][q], second > 0) * half_of(b[q][j], second > 0);
      }
    }
  }
  std::memcpy(tiles[sums], c, sizeof c);
}

}  // namespace
