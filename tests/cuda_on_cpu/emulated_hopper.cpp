// tests/cuda_on_cpu/emulated_hopper.cpp
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/cuda/hopper.h"  // emulated_hopper.h

namespace cuda_on_cpu {
namespace {

constexpr unsigned warpgroup = 128, warpgroups = 1024 / warpgroup;

// The state of a barrier, in the 64 bits that it has.
struct Bits {
  uint64_t missing : 12, arrivals : 12, phase : 1, mark : 7;
  int64_t bytes : 32;  // announced and not yet here; negative when they were faster
};
constexpr uint64_t initialised = 0x2d, fenced = 0x2e;

Bits read(uint64_t state) {
  Bits bits = std::bit_cast<Bits>(state);
  if (bits.mark != initialised && bits.mark != fenced) fail("mbarrier: not initialised");
  return bits;
}
void write(uint64_t& state, Bits bits) {
  if (!bits.missing && !bits.bytes) bits.phase ^= 1, bits.missing = bits.arrivals;
  state = std::bit_cast<uint64_t>(bits);
}

struct Tile {
  unsigned char* to;
  CUtensorMap map;
  int64_t at[3];
  uint64_t* barrier;
};

// Accumulators of a warpgroup that products under way will change.
struct Sums {
  float* d[warpgroup] = {};
  int columns = 0;
  unsigned group = 0;         // of the youngest product
  unsigned left = warpgroup;  // threads that have not yet waited
  float value[64][128];
};
// Operands that must not change until every warp has waited for `group`.
struct Operands {
  std::vector<uint16_t> a, b;
  TileProduct product;
  unsigned group;
  unsigned waited = 0;  // a bit per warp
};

struct Warpgroup {
  const TileProduct* product[warpgroup] = {};
  unsigned came = 0, round = 0;
  unsigned committed[warpgroup] = {};
  bool open[warpgroup] = {};  // the thread's last fence is younger than its last commit
  std::vector<Sums> sums;
  std::vector<Operands> operands;
};

struct State {
  std::vector<Tile> tiles;
  struct Fresh {
    Thread* thread;
    uint64_t* barrier;
  };
  std::vector<Fresh> fresh;  // barriers initialised and not yet fenced
  Warpgroup groups[warpgroups];
  bool used = false;
};
thread_local State state;

unsigned place() { return (current->warp * 32 + current->lane) % warpgroup; }
Warpgroup& mine() {
  state.used = true;
  return state.groups[current->warp * 32 / warpgroup];
}

// Where 16-byte pieces of a 128-byte swizzle lie: address bits 4-6 are exchanged by bits 7-9.
uint64_t swizzle(uint64_t address) { return address ^ (address >> 7 & 7) << 4; }

// The (rows, 16) operand that a descriptor stands for (PTX ISA, 9.7.15.5.1).
std::vector<uint16_t> operand(uint64_t descriptor, bool outer, int rows) {
  const uint64_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4;
  const uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1) fail("wgmma: a descriptor without 128-byte swizzle");
  if (descriptor >> 49 & 7) fail("wgmma: a descriptor with a base offset");
  if (start % 1024 >= (outer ? 1 : 128)) fail("wgmma: an operand that is not 1024-byte aligned");
  std::vector<uint16_t> values;
  for (int r = 0; r < rows; r++) {
    for (int k = 0; k < 16; k++) {
      uint64_t at = outer ? start + r / 64 * leading + k / 8 * stride + k % 8 * 128 + r % 64 * 2
                          : start + r / 8 * stride + r % 8 * 128 + k * 2;
      at = swizzle(at);
      if (at + 2 > dynamic_shared_bytes) fail("wgmma: an operand outside shared memory");
      values.emplace_back();
      std::memcpy(&values.back(), dynamic_shared + at, 2);
    }
  }
  return values;
}

float number(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// Row and column of element e of fragment f of thread t.
int row_of(unsigned t, int e) { return int(t / 32 * 16 + t % 32 / 4) + e / 2 * 8; }
int column_of(unsigned t, int f, int e) { return f * 8 + int(t % 4) * 2 + e % 2; }

// All 128 threads have come: the last one multiplies for everyone.
void start(Warpgroup& group) {
  const TileProduct& p = *group.product[0];
  for (const TileProduct* other : group.product) {
    if (other->a != p.a || other->b != p.b || other->columns != p.columns ||
        other->accumulate != p.accumulate || other->a_outer != p.a_outer ||
        other->b_outer != p.b_outer || !other->a_registers != !p.a_registers) {
      fail("wgmma: threads of a warpgroup disagree");
    }
  }
  Operands operands = {{}, operand(p.b, p.b_outer, p.columns), p, group.committed[0], 0};
  float a[64][16], b[16][128];
  if (p.a_registers) {
    for (unsigned t = 0; t < warpgroup; t++) {
      for (int i = 0; i < 4; i++) {
        float* pair = &a[row_of(t, i % 2 * 2)][t % 4 * 2 + i / 2 * 8];
        pair[0] = number(group.product[t]->a_registers[i]);
        pair[1] = number(group.product[t]->a_registers[i] >> 16);
      }
    }
  } else {
    operands.a = operand(p.a, p.a_outer, 64);
    for (int i = 0; i < 64 * 16; i++) a[i / 16][i % 16] = number(operands.a[i]);
  }
  for (int i = 0; i < p.columns * 16; i++) b[i % 16][i / 16] = number(operands.b[i]);
  group.operands.push_back(std::move(operands));

  size_t i = 0;
  while (i < group.sums.size() && group.sums[i].d[0] != p.d) i++;
  const bool first = i == group.sums.size();
  if (first) group.sums.emplace_back();
  Sums& sums = group.sums[i];
  sums.columns = p.columns, sums.group = group.committed[0];
  for (unsigned t = 0; t < warpgroup; t++) {
    if (!first && sums.d[t] != group.product[t]->d) fail("wgmma: accumulators overlap");
    sums.d[t] = group.product[t]->d;
    for (int f = 0; f < p.columns / 8; f++) {
      for (int e = 0; e < 4; e++) {
        float& sum = sums.value[row_of(t, e)][column_of(t, f, e)];
        if (!p.accumulate) {
          sum = 0;
        } else if (first) {
          sum = sums.d[t][f * 4 + e];
        }
        if (first) sums.d[t][f * 4 + e] = NAN;
      }
    }
  }
  for (int r = 0; r < 64; r++) {
    for (int k = 0; k < 16; k++) {
      for (int c = 0; c < p.columns; c++) sums.value[r][c] += a[r][k] * b[k][c];
    }
  }
}

}  // namespace

void multiply(const TileProduct& product) {
  Warpgroup& group = mine();
  if (!group.open[place()]) fail("wgmma: a group must begin with a fence");
  group.product[place()] = &product;
  if (++group.came == warpgroup) {
    start(group);
    group.came = 0, group.round++;
  } else {
    wait_until([&group, round = group.round] { return group.round != round; });
  }
}

void fence_products() { mine().open[place()] = true; }

void commit_products() {
  mine().open[place()] = false;
  mine().committed[place()]++;
}

void wait_products(int may_remain) {
  Warpgroup& group = mine();
  const unsigned over = group.committed[place()] - unsigned(may_remain);  // groups before this one
  if (int(over) <= 0) return;
  for (size_t i = 0; i < group.operands.size(); i++) {
    Operands& o = group.operands[i];
    const unsigned bit = 1u << place() / 32;
    if (o.group >= over || (o.waited & bit)) continue;
    if (o.b != operand(o.product.b, o.product.b_outer, o.product.columns) ||
        (!o.a.empty() && o.a != operand(o.product.a, o.product.a_outer, 64))) {
      fail("wgmma: shared memory was written while a product read it");
    }
    o.waited |= bit;
    if (o.waited == 15) group.operands.erase(group.operands.begin() + long(i--));
  }
  for (size_t i = 0; i < group.sums.size(); i++) {
    Sums& sums = group.sums[i];
    float*& d = sums.d[place()];
    if (sums.group >= over || !d) continue;
    for (int f = 0; f < sums.columns / 8; f++) {
      for (int e = 0; e < 4; e++) {
        d[f * 4 + e] = sums.value[row_of(place(), e)][column_of(place(), f, e)];
      }
    }
    d = nullptr;
    if (!--sums.left) group.sums.erase(group.sums.begin() + long(i--));
  }
}

void barrier_init(uint64_t& b, int arrivals) {
  state.used = true;
  b = std::bit_cast<uint64_t>(Bits{uint64_t(arrivals), uint64_t(arrivals), 0, initialised, 0});
  state.fresh.push_back({current, &b});
}

void fence_async() {
  for (State::Fresh& f : state.fresh) {
    if (f.thread != current || !f.barrier) continue;
    Bits bits = read(*f.barrier);
    bits.mark = fenced;
    *f.barrier = std::bit_cast<uint64_t>(bits);
    f.barrier = nullptr;
  }
}

void barrier_arrive(uint64_t& b, int bytes) {
  Bits bits = read(b);
  if (!bits.missing) fail("mbarrier: more arrivals than it was made for");
  bits.missing--, bits.bytes += bytes;
  write(b, bits);
}

void barrier_wait(uint64_t& b, int phase) {
  read(b);
  wait_until([&b, phase] { return int(read(b).phase) != phase; });
}

void load_tile(void* shared, const CUtensorMap& map, int x, int y, int z, uint64_t& barrier) {
  auto* to = static_cast<unsigned char*>(shared);
  const size_t bytes = size_t(map.box[0]) * map.box[1] * map.box[2] * 2;
  if (to < dynamic_shared || to + bytes > dynamic_shared + dynamic_shared_bytes) {
    fail("load_tile: a tile outside shared memory");
  }
  if ((to - dynamic_shared) % 1024) fail("load_tile: a tile that is not 1024-byte aligned");
  if (read(barrier).mark != fenced) fail("load_tile: its barrier was not fenced");
  std::memset(to, 0xff, bytes);
  state.tiles.push_back({to, map, {x, y, z}, &barrier});
  state.used = true;
}

bool deliver_tile(unsigned choice) {
  if (state.tiles.empty()) return false;
  const size_t i = choice % state.tiles.size();
  const Tile tile = state.tiles[i];
  state.tiles.erase(state.tiles.begin() + long(i));
  const CUtensorMap& map = tile.map;
  uint64_t base = uint64_t(tile.to - dynamic_shared), n = 0;
  for (int64_t z = tile.at[2]; z < tile.at[2] + map.box[2]; z++) {
    for (int64_t y = tile.at[1]; y < tile.at[1] + map.box[1]; y++) {
      for (int64_t x = tile.at[0]; x < tile.at[0] + map.box[0]; x++, n += 2) {
        const bool inside = x >= 0 && y >= 0 && z >= 0 && uint64_t(x) < map.extent[0] &&
                            uint64_t(y) < map.extent[1] && uint64_t(z) < map.extent[2];
        unsigned char* to = dynamic_shared + swizzle(base + n);
        if (inside) {
          std::memcpy(
              to, map.data + x * 2 + y * int64_t(map.stride[1]) + z * int64_t(map.stride[2]), 2);
        } else {
          std::memset(to, 0, 2);
        }
      }
    }
  }
  Bits bits = read(*tile.barrier);
  bits.bytes -= int64_t(n);
  write(*tile.barrier, bits);
  return true;
}

void end_block(bool finished) {
  if (!state.used) return;
  const bool tiles = !state.tiles.empty();
  bool products = false;
  for (const Warpgroup& group : state.groups) products |= !group.sums.empty();
  state = {};
  if (finished && tiles) fail("a block ended while tiles were on their way to it");
  if (finished && products) fail("a block ended without waiting for its products");
}

void set_registers(int count) {
  if (count % 8 || count < 24 || count > 256) fail("setmaxnreg: not a multiple of 8 in 24 to 256");
}

}  // namespace cuda_on_cpu

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* data, const cuuint64_t* extent, const cuuint64_t* stride,
                                const cuuint32_t* box, const cuuint32_t* element_stride,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  bool good = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank == 3 &&
              interleave == CU_TENSOR_MAP_INTERLEAVE_NONE &&
              swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] * 2 <= 128 &&
              reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
              reinterpret_cast<uintptr_t>(map) % 64 == 0;
  for (int i = 0; i < 3; i++) {
    good &= extent[i] >= 1 && extent[i] <= 1ull << 32 && box[i] >= 1 && box[i] <= 256;
    good &= element_stride[i] == 1;
    if (i) good &= stride[i - 1] % 16 == 0 && stride[i - 1] < 1ull << 40;
  }
  if (!good) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const char*>(data),
          {extent[0], extent[1], extent[2]},
          {2, stride[0], stride[1]},
          {box[0], box[1], box[2]}};
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const bool known = !std::strcmp(symbol, "cuTensorMapEncodeTiled");
  *function = known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (found) {
    *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}
