// tensor/cuda/hopper.h - what only Hopper GPUs (sm_90a) can do, one function each: barriers that
// count bytes, tiles copied by hardware, and products of four warps straight from shared memory.
//
// Section numbers are those of the PTX ISA 9.0, chapter 9.7. Under g++ the same names come from
// tests/cuda_on_cpu/. Kernels built from these are checked once on every device, see first_use().
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>

#include "tensor/cuda/instructions.h"
#include "tensor/tensor.h"

namespace murmur::cuda {

constexpr int kWarpgroup = 128;  // threads that multiply together
constexpr int kPanel = 64;  // columns of a panel: 64 bf16 are the 128 bytes of one swizzled row

// How an operand lies in shared memory: rows of the inner dimension k, or rows of the outer one.
enum class Major { k, outer };

// A tile in shared memory is panels of `rows` x 64, 1024-byte aligned, each row 128 bytes whose
// eight 16-byte pieces are exchanged: piece p of row r lies at p ^ (r % 8). Row by row and column
// by column, eight reads then fall into different banks.
constexpr int swizzled(int row, int column) {  // element offset in a panel
  return row * kPanel + (column ^ row % 8 * 8);
}

}  // namespace murmur::cuda

// Kernels for Hopper have a body only where the instructions exist.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MURMUR_HOPPER
#endif

#ifdef __CUDACC__
#include <cuda.h>  // CUtensorMap; only types, nothing to link

namespace murmur::cuda {

// A barrier in shared memory (13.15). A phase ends when all arrivals and all bytes that were
// announced have come; phases are numbered 0, 1, 0, 1, ...
struct Mbarrier {
  uint64_t state;
};
__device__ inline void barrier_init(Mbarrier& b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&b)), "r"(arrivals)
               : "memory");
}
__device__ inline void arrive(Mbarrier& b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&b)) : "memory");
}
// Arrives, and announces bytes that load_tile will bring.
__device__ inline void arrive_expecting(Mbarrier& b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)),
               "r"(bytes)
               : "memory");
}
// Returns when the phase of this number has ended. A fresh barrier has "ended" phase 1.
__device__ inline void wait(Mbarrier& b, int phase) {
  uint32_t done;
  do {
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, "
        "p;}"
        : "=r"(done)
        : "r"(shared_address(&b)), "r"(phase)
        : "memory");
  } while (!done);
}
// What this thread wrote to shared memory by ordinary stores becomes visible to tile copies and
// products (section 8.4: the async proxy); a barrier among the threads must follow.
__device__ inline void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Barrier number `id` (1 to 15) among `threads` threads of the block.
__device__ inline void sync_some(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Moves registers between warpgroups; called by all four warps. N: registers per thread from here.
template <int N>
__device__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

using TileMap = CUtensorMap;

// Starts copying the box at column x, row y of matrix z; zeros where that lies outside. The bytes
// of the whole box count on the barrier, in whichever order they come (9.27).
__device__ inline void load_tile(void* shared, const TileMap& map, int x, int y, int z,
                                 Mbarrier& b) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(&b)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Describes rows of a panel to multiply() (15.5.1.2): address bits 0-13 and the two strides bits
// 16-29 and 32-45, all in units of 16 bytes; bits 62-63: 1 for the 128-byte swizzle. Eight rows are
// always 1024 bytes. next_panel: bytes to the panel with the next 64 columns, which only
// Major::outer operands use.
__device__ inline uint64_t describe(const void* shared, int next_panel = 16) {
  return uint64_t((shared_address(shared) & 0x3ffff) >> 4) | uint64_t(next_panel >> 4) << 16 |
         uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// Around products (15.7): first a fence, so that registers written before are seen; then products;
// then commit, which closes a group. wait_products<N> returns when at most the N youngest groups
// are under way. Until then their accumulators and their shared memory must not be touched.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N>
__device__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// d (64 x 8n) = a (64 x 16) b (16 x 8n) [+ d], started by four warps together (15.5.2). Warp w
// holds rows 16 w to 16 w + 15 of d, in n fragments of 8 columns that look as those of mma() do.
#define MURMUR_D32                                                                               \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%" \
  "25,"                                                                                          \
  "%26,%27,%28,%29,%30,%31"
#define MURMUR_D64                                                                                \
  MURMUR_D32                                                                                      \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54," \
  "%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MURMUR_D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define MURMUR_D16(i) MURMUR_D4(i), MURMUR_D4(i + 1), MURMUR_D4(i + 2), MURMUR_D4(i + 3)
#define MURMUR_WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 "

template <Major a_major = Major::k, Major b_major = Major::k>
__device__ void multiply(float (&d)[8][4], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;" MURMUR_WGMMA("64") MURMUR_D32
               "}, %32, %33, p, 1, 1, %35, %36;}"
               : MURMUR_D16(0), MURMUR_D16(4)
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(a_major)), "n"(int(b_major)));
}
template <Major a_major = Major::k, Major b_major = Major::k>
__device__ void multiply(float (&d)[16][4], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;" MURMUR_WGMMA("128") MURMUR_D64
               "}, %64, %65, p, 1, 1, %67, %68;}"
               : MURMUR_D16(0), MURMUR_D16(4), MURMUR_D16(8), MURMUR_D16(12)
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(a_major)), "n"(int(b_major)));
}
// The same with a in registers: its rows 16 w to 16 w + 15 in warp w, as those of mma().
template <Major b_major>
__device__ void multiply(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;" MURMUR_WGMMA("64") MURMUR_D32
               "}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;}"
               : MURMUR_D16(0), MURMUR_D16(4)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)),
                 "n"(int(b_major)));
}
template <Major b_major>
__device__ void multiply(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;" MURMUR_WGMMA("128") MURMUR_D64
               "}, {%64,%65,%66,%67}, %68, p, 1, 1, %70;}"
               : MURMUR_D16(0), MURMUR_D16(4), MURMUR_D16(8), MURMUR_D16(12)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)),
                 "n"(int(b_major)));
}

}  // namespace murmur::cuda

#else
#include <emulated_hopper.h>
#endif

namespace murmur::cuda {

// This warp is done with what `empty` guards; every warp that reads there says so.
__device__ inline void release(Mbarrier& empty) {
  if (threadIdx.x % 32 == 0) arrive(empty);
}

// Matrices (`count`, `rows`, `columns`) of bf16 at `data`, rows `row_stride` elements apart, to be
// copied in boxes of `box_rows` x 64. Needs row_stride % 8 == 0 and data 16-byte aligned.
TileMap tile_map(const bf16* data, int64_t count, int64_t rows, int64_t columns, int64_t row_stride,
                 int box_rows);

// Whether kernel `name` may be used here: only on compute capability 9.0, and only when, at its
// first use, a small problem gave the right answer (`error`, relative to a reference, is below
// 1e-2). Else says so once on stderr; the caller then takes its general kernel. One `verdict` per
// kernel: 0 not yet known.
bool first_use(const char* name, int& verdict, const std::function<double()>& error);

// What those checks are made of, on the device: normally distributed bf16, and |got - want| /
// |want|.
Tensor sample(Shape shape, uint64_t seed);
double difference(const Tensor& got, const Tensor& want);

}  // namespace murmur::cuda
