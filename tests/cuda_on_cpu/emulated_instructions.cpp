// tests/cuda_on_cpu/emulated_instructions.cpp - what the last lane of a warp does for all of them.
#include "emulated_instructions.h"

#include <bit>
#include <cstring>

namespace cuda_on_cpu {
namespace {

float low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float high(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

void check_aligned(const void* p, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % 16) fail(std::string(what) + ": an address not of 16 bytes");
}

void gather_rows(void* const* lanes, uint32_t came, uint16_t (&rows)[32][8]) {
  if (came != ~0u) fail("ldmatrix needs all 32 lanes");
  for (int lane = 0; lane < 32; lane++) {
    const void* row = static_cast<const Matrices*>(lanes[lane])->row;
    check_aligned(row, "ldmatrix");
    std::memcpy(rows[lane], row, 16);
  }
}

}  // namespace

// One lane unpacks everyone's fragments, multiplies the tiles, and hands the sums out.
void mma(void* const* lanes, uint32_t came) {
  using Row = float __attribute__((vector_size(32)));
  if (came != ~0u) fail("mma needs all 32 lanes");
  float a[16][16];
  Row b[16], d[16];
  for (int lane = 0; lane < 32; lane++) {
    const Mma& m = *static_cast<const Mma*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
      a[g + i % 2 * 8][t + i / 2 * 8] = low(m.a[i]);
      a[g + i % 2 * 8][t + i / 2 * 8 + 1] = high(m.a[i]);
      d[g + i / 2 * 8][t + i % 2] = m.d[i];
    }
    for (int i = 0; i < 2; i++) {
      b[t + i * 8][g] = low(m.b[i]);
      b[t + i * 8 + 1][g] = high(m.b[i]);
    }
  }
  for (int row = 0; row < 16; row++) {
    Row sum = d[row];
    for (int k = 0; k < 16; k++) sum += a[row][k] * b[k];
    d[row] = sum;
  }
  for (int lane = 0; lane < 32; lane++) {
    const Mma& m = *static_cast<const Mma*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < 4; i++) m.d[i] = d[g + i / 2 * 8][t + i % 2];
  }
}

void load_matrices(void* const* lanes, uint32_t came) {
  uint16_t rows[32][8];
  gather_rows(lanes, came, rows);
  for (int lane = 0; lane < 32; lane++) {
    uint32_t* r = static_cast<const Matrices*>(lanes[lane])->r;
    for (int i = 0; i < 4; i++) std::memcpy(&r[i], &rows[i * 8 + lane / 4][lane % 4 * 2], 4);
  }
}

void load_matrices_transposed(void* const* lanes, uint32_t came) {
  uint16_t rows[32][8];
  gather_rows(lanes, came, rows);
  for (int lane = 0; lane < 32; lane++) {
    uint32_t* r = static_cast<const Matrices*>(lanes[lane])->r;
    for (int i = 0; i < 4; i++) {
      const int row = i * 8 + lane % 4 * 2;
      r[i] = uint32_t(rows[row][lane / 4]) | uint32_t(rows[row + 1][lane / 4]) << 16;
    }
  }
}

void copy_async(void* to, const void* from, bool valid) {
  check_aligned(to, "cp.async");
  check_aligned(from, "cp.async");
  current->copies.start(to, valid ? from : nullptr);
}

}  // namespace cuda_on_cpu
