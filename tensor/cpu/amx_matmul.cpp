// tensor/cpu/amx_matmul.cpp - bf16 products on AMX, the matrix registers of x86.
//
// A tile register holds 16 rows of 64 bytes. One instruction adds the product of a left tile
// (16 rows x 32 of the inner dimension) and a right tile (16 columns) to 16 x 16 sums in fp32:
//
//   left tile:   row i is bf16 (i, 0..31)                          as a row-major matrix has it
//   right tile:  row q is the pairs (2q, j), (2q+1, j), j = 0..15  pairs along the inner dimension
//
// Taken as 16 x 16 numbers of 32 bits, each the pair (2q, 2q+1) of one line, the right tile is the
// left tile of the same numbers transposed. So every operand is packed in two steps at most: pairs
// are made where lines are columns in memory, and transposed where that is the wrong way round. A
// left side whose lines are rows is not packed at all but for its margins.
//
// Four registers of sums (32 x 32) take two left and two right tiles a step: each loaded tile is
// used twice. A long inner dimension goes by in pieces: the right side's piece is packed once and
// stays in the second-level cache while the left side goes by in strips of 32 rows. Every sum runs
// along the inner dimension in the order of memory, whatever block it is part of.
#include <algorithm>
#include <cstring>

#include "tensor/cpu/bf16_matmul.h"
#include "tensor/cpu/small_matmul.h"  // transpose_words, make_pairs
#include "tensor/tensor.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MURMUR_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace murmur {
namespace {

constexpr int64_t kLines = 16, kDepth = 32, kTile = kLines * kDepth;  // of a tile; bf16 in it
constexpr int64_t kBlock = 2 * kLines;  // of rows and columns that are summed at once
// Of the inner dimension: one that is longer than kWhole goes by in pieces.
constexpr int64_t kWhole = 1024, kPiece = 512;

int64_t padded(int64_t size) { return (size + kBlock - 1) / kBlock * kBlock; }

// All eight registers are 16 rows of 64 bytes; margins are filled with zeros instead.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Transposes 16 x 16 words, whatever the length of a vector.
void transpose_tile(const void* from, int64_t from_bytes, void* to, int64_t to_bytes) {
  constexpr int64_t L = kLanes<float>, kWord = sizeof(float);
  for (int64_t i = 0; i < kLines; i += L) {
    for (int64_t j = 0; j < kLines; j += L)
      transpose_words<float>(static_cast<const char*>(from) + i * from_bytes + j * kWord,
                             from_bytes, static_cast<char*>(to) + j * to_bytes + i * kWord,
                             to_bytes);
  }
}

// Packs at most 16 lines x 32 of the inner dimension, from element (0, 0) of x on. Rows of the tile
// lie `stride` apart; a right one's follow each other.
void pack_tile(Bf16Side x, int64_t lines, int64_t depth, bool left, bf16* tile, int64_t stride) {
  alignas(64) bf16 margin[kTile];
  if (lines < kLines || depth < kDepth) {  // the same with zeros around it
    std::fill(margin, margin + kTile, bf16());
    int64_t rows = x.lines_are_rows ? lines : depth, cols = x.lines_are_rows ? depth : lines;
    int64_t apart = x.lines_are_rows ? kDepth : kLines;
    for (int64_t i = 0; i < rows; i++)
      std::copy(x.data + i * x.stride, x.data + i * x.stride + cols, margin + i * apart);
    x.data = margin;
    x.stride = apart;
  }
  if (x.lines_are_rows && left) {
    for (int64_t i = 0; i < kLines; i++)
      std::memcpy(tile + i * stride, x.data + i * x.stride, kDepth * sizeof(bf16));
  } else if (x.lines_are_rows) {
    transpose_tile(x.data, x.stride * int64_t(sizeof(bf16)), tile, 64);
  } else if (left) {
    alignas(64) uint32_t pairs[kLines * kLines];
    make_pairs<kLines>(x.data, x.stride, pairs);
    transpose_tile(pairs, 64, tile, stride * int64_t(sizeof(bf16)));
  } else {
    make_pairs<kLines>(x.data, x.stride, reinterpret_cast<uint32_t*>(tile));
  }
}

// Packs lines [line, last), of which the operand has `lines`, in the order of memory. The left side
// becomes rows `stride` apart; the right one panels of 32 lines, tiles one after the other.
void pack(const Bf16Side& x, int64_t line, int64_t last, int64_t lines, int64_t begin, int64_t end,
          bool left, bf16* to, int64_t stride) {
  auto pack_at = [&](int64_t l, int64_t p) {
    int64_t down = l - line, along = p - begin, depth = padded(end - begin);
    bf16* tile = to + (left ? down * stride + along
                            : (down / kBlock * depth + along) * kBlock + down % kBlock * kDepth);
    Bf16Side from = x;
    from.data += x.lines_are_rows ? l * x.stride + p : p * x.stride + l;
    pack_tile(from, std::clamp<int64_t>(lines - l, 0, kLines), std::min(kDepth, end - p), left,
              tile, stride);
  };
  if (x.lines_are_rows) {
    for (int64_t l = line; l < last; l += kLines) {
      for (int64_t p = begin; p < end; p += kDepth) pack_at(l, p);
    }
  } else {
    for (int64_t p = begin; p < end; p += kDepth) {
      for (int64_t l = line; l < last; l += kLines) pack_at(l, p);
    }
  }
}

// 32 x 32 sums (+)= a left panel times a right panel, `steps` tiles deep.
MURMUR_AMX void multiply_panels(int64_t steps, const bf16* left, int64_t left_stride,
                                const bf16* right, bool add, float* sums, int64_t stride) {
  const int64_t left_row = left_stride * int64_t(sizeof(bf16));
  const int64_t row = stride * int64_t(sizeof(float));
  float* below = sums + kLines * stride;
  if (add) {
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + kLines, row);
    _tile_loadd(2, below, row);
    _tile_loadd(3, below + kLines, row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; step++, left += kDepth, right += 2 * kTile) {
    _tile_loadd(4, left, left_row);
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + kTile, 64);
    _tile_loadd(5, left + kLines * left_stride, left_row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + kLines, row);
  _tile_stored(2, below, row);
  _tile_stored(3, below + kLines, row);
}

MURMUR_AMX void multiply(const Bf16Product& p, int64_t piece, bf16* left_panel, bf16* right,
                         float* sums, int64_t stride) {
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  for (int64_t begin = 0; begin < p.k; begin += piece) {
    int64_t end = std::min(p.k, begin + piece), depth = padded(end - begin);
    pack(p.right, 0, padded(p.n), p.n, begin, end, false, right, 0);
    for (int64_t i = 0; i < p.m; i += kBlock) {
      Bf16Side left{p.left.data + i * p.left.stride + begin, p.left.stride, true};
      if (!p.left.lines_are_rows || i + kBlock > p.m || depth > end - begin) {
        left = {left_panel, depth + kDepth, true};
        pack(p.left, i, i + kBlock, p.m, begin, end, true, left_panel, left.stride);
      }
      asm volatile("" ::: "memory");  // the intrinsics do not say that they read the panels
      float* strip = piece < p.k ? sums + i * stride : sums;
      for (int64_t j = 0; j < (p.lower ? std::min(p.n, i + 1) : p.n); j += kBlock)
        multiply_panels(depth / kDepth, left.data, left.stride, right + j * depth, begin > 0,
                        strip + j, stride);
      if (end == p.k) p.finish(i, std::min(kBlock, p.m - i), strip, stride);
    }
  }
  _tile_release();
}

}  // namespace

bool amx_available() {
  static const bool available = [] {
    unsigned a, b, c, d;
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID leaf 7, EDX
    constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) && (d & kAmxTile) &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return available;
}

void amx_product(const Bf16Product& p) {
  int64_t piece = p.k <= kWhole ? p.k : kPiece, depth = padded(piece), width = padded(p.n);
  Tensor left({kBlock, depth + kDepth}, DType::bf16), right({width, depth}, DType::bf16),
      sums({piece < p.k ? padded(p.m) : kBlock, width});
  multiply(p, piece, left.data<bf16>(), right.data<bf16>(), sums.data<float>(), width);
}

}  // namespace murmur

#else  // no such processor or system

namespace murmur {
bool amx_available() { return false; }
void amx_product(const Bf16Product&) {}
}  // namespace murmur

#endif
